// SPDX-License-Identifier: Apache-2.0
//! What somebody has to know to be answered over TCP: 64 hexadecimal digits that nobody can guess.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use axum::http::{HeaderMap, header};
use ring::rand::{SecureRandom, SystemRandom};
use types::{Error, ErrorKind, Result};

/// Fewer letters than this could be guessed.
const LEN_MIN: usize = 32;

/// A secret that both ends know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Makes one that nobody can guess.
    ///
    /// # Errors
    /// `Internal` when the kernel has no randomness to give.
    pub fn random() -> Result<Token> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::internal("the kernel gave no randomness for a token"))?;
        Ok(Token(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// Reads it from a file, which nobody but its owner may read.
    ///
    /// # Errors
    /// `NotFound` when there is no file, `PermissionDenied` when others may read it, `Invalid` for what
    /// is no token.
    pub fn read(file: &Path) -> Result<Token> {
        let shown = file.display();
        let what = || format!("read the token in '{shown}'");
        let meta = fs::metadata(file).map_err(|source| Error::io(what(), source))?;
        if meta.mode() & 0o077 != 0 {
            let message = format!("others may read the token in '{shown}': chmod 600 '{shown}'");
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        let text = fs::read_to_string(file).map_err(|source| Error::io(what(), source))?;
        let token = text.trim();
        if token.len() < LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!(
                "'{shown}' holds no token: write at least {LEN_MIN} letters and digits that nobody can \
                 guess there, or remove it and have one made"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Token(token.to_owned()))
    }

    /// Reads it from a file, and makes the file when it is not there.
    ///
    /// # Errors
    /// Those of [`Token::read`], and why the file could not be made.
    pub fn read_or_make(file: &Path) -> Result<Token> {
        match Token::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => return read,
        }
        let token = Token::random()?;
        write_secret(file, &format!("{}\n", token.text()))?;
        Ok(token)
    }

    /// Returns the words to tell the user.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Compares in a time that tells nothing of where the two differ.
    fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differ = own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == given.len() && differ == 0
    }

    /// Returns whether a request brings it.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        given
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| self.is(given))
    }
}

/// A secret shows in no log.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// Makes a file that only its owner may read. One that is there already stays as it is, and is an
/// error.
pub(crate) fn write_secret(file: &Path, text: &str) -> Result<()> {
    let fault = |source| Error::io(format!("make '{}'", file.display()), source);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(fault)?;
    }
    let mut options = File::options();
    let made = options.write(true).create_new(true).mode(0o600).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes()))
        .map_err(fault)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use axum::http::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn a_token_is_long_of_its_own_and_compared_as_a_whole() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(one.text().len(), 64);
        assert_ne!(one, other);
        let brings = |value: &str| one.is_in(&headers(value));
        assert!(brings(&format!("Bearer {}", one.text())));
        for bad in [
            format!("Bearer {}", other.text()),
            format!("Bearer {}", &one.text()[1..]),
            format!("Bearer {}0", one.text()),
            one.text().to_owned(),
            "Bearer ".to_owned(),
        ] {
            assert!(!brings(&bad), "{bad}");
        }
        assert!(!format!("{one:?}").contains(one.text()));
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_and_read_after() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below/token");
        let made = Token::read_or_make(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Token::read_or_make(&file).unwrap(), made);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Token::read(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod 600"), "{error}");
        let short = dir.path().join("short");
        write_secret(&short, "guess me").unwrap();
        assert_eq!(Token::read(&short).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(
            Token::read(&dir.path().join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
