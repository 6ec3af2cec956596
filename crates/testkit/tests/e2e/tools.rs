// SPDX-License-Identifier: Apache-2.0
//! The tools that people use on a tree give the same answers on the mount as on the data itself.

use std::path::Path;
use std::process::Command;

use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

/// Runs a shell command in a directory and returns what it printed.
#[track_caller]
fn shell(dir: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    assert_eq!(stderr, "", "{script}");
    String::from_utf8(output.stdout).unwrap()
}

fn tree(storage: &Storage) {
    storage.put("top.bin", 1, 300_000);
    storage.put_bytes("empty", b"");
    storage.put_bytes(
        "a/notes.txt",
        b"first line\nthe needle is here\nlast line\n",
    );
    storage.put_bytes("a/b/deep.txt", b"nothing to find\n");
    storage.put("a/b/c/d/e/leaf.bin", 2, 131_072);
    storage.put("big/5MiB.bin", 3, 5 << 20);
    for index in 0..30 {
        storage.put(
            format!("many/{index:03}.bin"),
            index,
            1000 + usize::try_from(index).unwrap(),
        );
    }
}

#[test]
fn find_ls_and_stat_show_the_names_and_sizes_of_the_storage() {
    for storage in Storage::each() {
        tree(&storage);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        for script in [
            "find . -type f -printf '%P %s\n' | LC_ALL=C sort",
            "find . -type d -printf '%P\n' | LC_ALL=C sort",
            "LC_ALL=C ls -R",
            "LC_ALL=C ls -1f many | sort",
            "stat -c '%n %s %F' top.bin empty a/b/deep.txt && stat -c '%n %F' . a a/b",
            "du --apparent-size -b big/5MiB.bin top.bin",
        ] {
            assert_eq!(
                shell(mount.point(), script),
                shell(storage.root(), script),
                "{script}"
            );
        }
        let long = shell(mount.point(), "ls -l top.bin");
        assert!(long.starts_with("-r") || long.starts_with("-rw"), "{long}");
    }
}

#[test]
fn cat_cp_grep_tar_and_rsync_get_the_right_bytes() {
    for storage in Storage::each() {
        tree(&storage);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let (from, truth) = (mount.point(), storage.root());
        assert_eq!(
            shell(from, "cat top.bin | sha256sum"),
            shell(truth, "cat top.bin | sha256sum")
        );
        let grep = "grep -rn needle . | LC_ALL=C sort";
        assert_eq!(shell(from, grep), shell(truth, grep));
        assert!(shell(from, grep).contains("a/notes.txt:2:the needle is here"));

        let copies = sandbox.dir().join("copies");
        std::fs::create_dir(&copies).unwrap();
        let [source, copied] = [from, copies.as_path()].map(|path| path.display().to_string());
        shell(&copies, &format!("mkdir cp tar && cp -r {source}/. cp"));
        shell(&copies, &format!("tar -C {source} -c . | tar -C tar -x"));
        shell(&copies, &format!("rsync -a {source}/ rsync/"));
        for way in ["cp", "tar", "rsync"] {
            let difference = format!("diff -r {copied}/{way} {}", truth.display());
            assert_eq!(shell(&copies, &difference), "", "{way}");
        }
        let again = shell(
            &copies,
            &format!("rsync -a --itemize-changes {source}/ rsync/"),
        );
        assert_eq!(again, "", "rsync finds nothing new the second time");
    }
}
