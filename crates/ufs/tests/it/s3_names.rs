// SPDX-License-Identifier: Apache-2.0
//! Keys on the wire: every legal byte goes out and comes back as it is.

use types::ByteRange;
use ufs::conformance::{list, read, stat};

use crate::liar::{Asked, Liar, Told, honest, told, v1};

/// Names that client libraries like to mend, and how they must look in a URL.
fn names() -> Vec<(String, String)> {
    let longest = "x".repeat(1024);
    [
        (" a ", "%20a%20"),
        ("\na\t", "%0Aa%09"),
        ("\u{1}\u{7f}", "%01%7F"),
        ("a%2Fb", "a%252Fb"),
        ("a+b", "a%2Bb"),
        ("?q=1&r", "%3Fq%3D1%26r"),
        ("#f", "%23f"),
        ("...", "..."),
        ("%2e%2e", "%252e%252e"),
        ("a;b:c@d$e,f", "a%3Bb%3Ac%40d%24e%2Cf"),
        ("\u{e9}\u{1f600}", "%C3%A9%F0%9F%98%80"),
        ("back\\slash", "back%5Cslash"),
        (longest.as_str(), longest.as_str()),
    ]
    .map(|(name, encoded)| (name.to_string(), encoded.to_string()))
    .into()
}

#[tokio::test]
async fn names_go_out_as_they_are() {
    for (name, encoded) in names() {
        let liar = Liar::start(|_, asked: &Asked| match asked.method.as_str() {
            "HEAD" => told(
                "200 OK",
                &[("ETag", "\"v1\""), ("Content-Length", "3")],
                b"",
            ),
            _ => honest(asked, b"abc", "v1"),
        });
        let liar = liar.await;
        let storage = liar.open().await;
        let path = format!("dir/{name}");
        let tag = stat(&*storage, path.as_bytes()).await.unwrap().tag;
        assert_eq!(tag, v1(3));
        let bytes = read(&*storage, path.as_bytes(), &tag, ByteRange::new(1, 2))
            .await
            .unwrap();
        assert_eq!(bytes, b"bc");
        for asked in liar.asked() {
            assert_eq!(asked.target, format!("/b/dir/{encoded}"), "{name:?}");
        }
    }
}

#[tokio::test]
async fn names_come_back_as_they_are_encoded_or_not() {
    let raw = |name: &str| {
        name.chars()
            .map(|c| format!("&#{};", u32::from(c)))
            .collect()
    };
    let url = |_: &str, encoded: &str| encoded.replace("%20", "+");
    for encode in [true, false] {
        let names = names();
        let mut page = String::from("<ListBucketResult>");
        if encode {
            page.push_str("<EncodingType>url</EncodingType>");
        }
        for (name, encoded) in &names {
            let key: String = if encode {
                url(name, encoded)
            } else {
                raw(name)
            };
            page.push_str(&format!(
                "<Contents><Key>dir/{key}</Key><Size>1</Size></Contents>\
                 <CommonPrefixes><Prefix>dir/d{key}/</Prefix></CommonPrefixes>"
            ));
        }
        page.push_str("<Contents><Key>dir/</Key><Size>0</Size></Contents></ListBucketResult>");
        let liar = Liar::start(move |_, _| -> Told { told("200 OK", &[], page.as_bytes()) });
        let liar = liar.await;
        let (entries, unshowable) = list(&*liar.open().await, b"dir").await.unwrap();
        let mut wanted: Vec<_> = names
            .iter()
            .flat_map(|(name, _)| [name.clone(), format!("d{name}")])
            .filter(|name| name.len() <= 1024)
            .collect();
        wanted.sort();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| String::from_utf8(entry.name.as_bytes().to_vec()).unwrap())
            .collect();
        assert_eq!(found, wanted);
        assert_eq!(unshowable, 1, "the directory of 1,025 bytes");
        let asked = &liar.asked()[0].target;
        assert!(
            asked.contains("encoding-type=url") && asked.contains("prefix=dir%2F"),
            "{asked}"
        );
    }
}
