// SPDX-License-Identifier: Apache-2.0
//! Patterns of paths, as people write them: `*.jpg`, `train/**`, `shard-00?.tar`.
//!
//! `*` stands for anything within a name, `**` for anything at all, `?` for one character of a name.
//! A pattern without a slash is matched against the last name of a path, any other one against the
//! whole path below the directory that was asked for. There are no classes and no braces: several
//! patterns do as well.

/// Patterns that take files in and leave files out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Globs {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob {
    parts: Vec<Part>,
    is_of_names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    One(char),
    AnyOne,
    Any,
    AnyPath,
    /// Any directories with the slash after them, or none at all: always before the next one.
    Directories,
    /// Inside of these.
    InDirectories,
}

impl Globs {
    /// Reads patterns; says what is wrong with one.
    pub(crate) fn parse(include: &[String], exclude: &[String]) -> Result<Globs, String> {
        let all = |texts: &[String]| {
            let globs = texts.iter().map(|text| Glob::parse(text));
            globs.collect::<Result<Vec<_>, _>>()
        };
        Ok(Globs {
            include: all(include)?,
            exclude: all(exclude)?,
        })
    }

    /// Returns whether a path, relative to the directory that was asked for, is meant.
    pub(crate) fn pick(&self, path: &str) -> bool {
        let matches = |glob: &Glob| glob.matches(path);
        let is_in = self.include.is_empty() || self.include.iter().any(matches);
        is_in && !self.exclude.iter().any(matches)
    }
}

impl Glob {
    fn parse(text: &str) -> Result<Glob, String> {
        let bare = text.trim_start_matches('/');
        if bare.is_empty() {
            return Err(format!(
                "'{text}' is no pattern; write one such as '*.jpg' or 'train/**'"
            ));
        }
        let mut parts = Vec::new();
        let mut letters = bare.chars().peekable();
        while let Some(letter) = letters.next() {
            let is_first = matches!(parts.last(), None | Some(Part::One('/')));
            match letter {
                '?' => parts.push(Part::AnyOne),
                '*' if letters.next_if_eq(&'*').is_none() => parts.push(Part::Any),
                // 'a/**/b' matches 'a/b' too.
                '*' if is_first && letters.next_if_eq(&'/').is_some() => {
                    parts.extend([Part::Directories, Part::InDirectories]);
                }
                '*' => parts.push(Part::AnyPath),
                letter => parts.push(Part::One(letter)),
            }
        }
        Ok(Glob {
            parts,
            is_of_names: !text.contains('/'),
        })
    }

    fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = if self.is_of_names { name } else { path };
        self.run(&text.chars().collect::<Vec<_>>())
    }

    /// Follows all ways through the pattern at once, so that none takes longer than pattern times
    /// path.
    fn run(&self, text: &[char]) -> bool {
        let mut at = vec![false; self.parts.len() + 1];
        at[0] = true;
        self.skip(&mut at);
        for letter in text {
            let mut next = vec![false; at.len()];
            for (index, part) in self
                .parts
                .iter()
                .enumerate()
                .filter(|(index, _)| at[*index])
            {
                match part {
                    Part::One(one) => next[index + 1] |= one == letter,
                    Part::AnyOne => next[index + 1] |= *letter != '/',
                    Part::Any => next[index] |= *letter != '/',
                    Part::AnyPath => next[index] = true,
                    Part::Directories => {}
                    Part::InDirectories => {
                        next[index] = true;
                        next[index + 1] |= *letter == '/';
                    }
                }
            }
            self.skip(&mut next);
            at = next;
        }
        at[self.parts.len()]
    }

    /// Stars may stand for nothing.
    fn skip(&self, at: &mut [bool]) {
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Any | Part::AnyPath => at[index + 1] |= at[index],
                Part::Directories => {
                    at[index + 1] |= at[index];
                    at[index + 2] |= at[index];
                }
                Part::One(_) | Part::AnyOne | Part::InDirectories => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let globs = Globs::parse(&owned(include), &owned(exclude)).unwrap();
        globs.pick(path)
    }

    #[test]
    fn names_and_paths_are_matched_as_people_expect() {
        for (pattern, path, expected) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "train/cat/a.jpg", true),
            ("*.jpg", "a.jpg.tmp", false),
            ("cat", "cat/a", false),
            ("cat/*", "cat/a", true),
            ("cat/*", "cat/a/b", false),
            ("cat/**", "cat/a/b", true),
            ("**/val/*", "x/y/val/a", true),
            ("**/val/*", "val/a", true),
            ("**/val/*", "interval/a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("/train/*", "train/a", true),
            ("?.txt", "é.txt", true),
            ("?.txt", "ab.txt", false),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("**", "anything/at/all", true),
        ] {
            assert_eq!(picks(&[pattern], &[], path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_excluded_is_out_whatever_includes_it() {
        assert!(picks(&[], &["*.tmp"], "a"));
        assert!(!picks(&[], &["*.tmp"], "d/a.tmp"));
        assert!(!picks(&["d/**"], &["*.tmp"], "d/a.tmp"));
        assert!(picks(&["d/**", "e/**"], &["*.tmp"], "e/a"));
        assert!(
            Globs::parse(&["/".into()], &[])
                .unwrap_err()
                .contains("'/'")
        );
    }
}
