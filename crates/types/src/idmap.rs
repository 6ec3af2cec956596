// SPDX-License-Identifier: Apache-2.0
//! Who owns what on this machine, for storages whose users are others.
//!
//! A map is a list of rules, as in `uid:1000=0,uid:2000-2999=5000,uid:alice=1001,gid:*=100`: what the
//! storage says, and what is shown. Of several rules that fit, the most exact holds: a name, a number,
//! a range, all. Pure data: a driver or a mount carries it out.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The number of an owner that the storage knows by a name and this machine does not know. No user
/// has it: system calls take it for "leave as it is".
pub const NOBODY_HERE: u32 = u32::MAX;

/// Largest number that an owner may have.
const ID_MAX: u32 = u32::MAX - 1;

/// The rules for users and those for groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// For users.
    pub users: Rules,
    /// For groups.
    pub groups: Rules,
}

/// Rules for one kind of owner. None of them overlap, but those for all with any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    names: Vec<(String, u32)>,
    /// Single numbers are ranges of one.
    ranges: Vec<(RangeInclusive<u32>, u32)>,
    all: Option<u32>,
}

impl IdMap {
    /// Returns whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Returns whether there are rules about names, which only some storages have.
    pub fn has_names(&self) -> bool {
        !self.users.names.is_empty() || !self.groups.names.is_empty()
    }
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.ranges.is_empty() && self.all.is_none()
    }

    /// Returns what is shown for a number of the storage's; the number itself where no rule fits.
    pub fn of_number(&self, number: u32) -> u32 {
        let within = self
            .ranges
            .iter()
            .find(|(range, _)| range.contains(&number));
        match within {
            Some((range, to)) => to + (number - range.start()),
            None => self.all.unwrap_or(number),
        }
    }

    /// Returns what is shown for a name of the storage's, which has a number on this machine or
    /// not; [`NOBODY_HERE`] where no rule fits and it has none.
    pub fn of_name(&self, name: &str, number: Option<u32>) -> u32 {
        let named = self.names.iter().find(|(from, _)| from == name);
        match (named, number) {
            (Some((_, to)), _) => *to,
            (None, Some(number)) => self.of_number(number),
            (None, None) => self.all.unwrap_or(NOBODY_HERE),
        }
    }

    /// Returns a number of the storage's that is shown as this one; none when there is none. Where
    /// several are, that of a rule for single numbers or a range.
    pub fn of_shown(&self, shown: u32) -> Option<u32> {
        let back = |(range, to): &(RangeInclusive<u32>, u32)| {
            let number = range.start().checked_add(shown.checked_sub(*to)?)?;
            range.contains(&number).then_some(number)
        };
        let ruled = self.ranges.iter().find_map(back);
        ruled.or_else(|| (self.of_number(shown) == shown).then_some(shown))
    }

    /// Returns a name of the storage's of which a rule says that it is shown as this number.
    pub fn name_of_shown(&self, shown: u32) -> Option<&str> {
        let named = self.names.iter().find(|(_, to)| *to == shown);
        named.map(|(name, _)| name.as_str())
    }

    fn add(&mut self, from: &str, to: u32) -> Result<(), String> {
        let taken = || format!("there are two rules for '{from}': leave one out");
        if from == "*" {
            return match self.all.replace(to) {
                None => Ok(()),
                Some(_) => Err(taken()),
            };
        }
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let range = match from.split_once('-') {
            Some((first, last)) if is_number(first) && is_number(last) => Some((first, last)),
            _ if is_number(from) => Some((from, from)),
            _ => None,
        };
        let Some((first, last)) = range else {
            if self.names.iter().any(|(name, _)| name == from) {
                return Err(taken());
            }
            self.names.push((from.to_owned(), to));
            return Ok(());
        };
        let range = id(first)?..=id(last)?;
        if range.is_empty() {
            return Err(format!("the range '{from}' ends before it begins"));
        }
        let end = to.checked_add(range.end() - range.start());
        if end.is_none_or(|end| end > ID_MAX) {
            return Err(format!("'{from}={to}' goes past {ID_MAX}, the largest id"));
        }
        let meets = |(other, _): &&(RangeInclusive<u32>, u32)| {
            other.start() <= range.end() && range.start() <= other.end()
        };
        if let Some((other, _)) = self.ranges.iter().find(meets) {
            let other = shown(other);
            return Err(format!(
                "'{from}' and '{other}' overlap: each id needs one rule"
            ));
        }
        self.ranges.push((range, to));
        Ok(())
    }

    fn show(&self, kind: &str) -> impl Iterator<Item = String> {
        let names = self.names.iter().map(|(from, to)| (from.clone(), *to));
        let ranges = self.ranges.iter().map(|(from, to)| (shown(from), *to));
        let all = self.all.map(|to| ("*".to_owned(), to));
        let rules = names.chain(ranges).chain(all);
        rules.map(move |(from, to)| format!("{kind}:{from}={to}"))
    }
}

fn shown(range: &RangeInclusive<u32>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

fn id(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= ID_MAX);
    number.ok_or_else(|| format!("'{text}' is not an id: give a number up to {ID_MAX}"))
}

impl FromStr for IdMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut map = IdMap::default();
        for rule in text
            .split(',')
            .map(str::trim)
            .filter(|rule| !rule.is_empty())
        {
            let parts = rule.split_once(':');
            let parts = parts.and_then(|(kind, rest)| Some((kind, rest.rsplit_once('=')?)));
            let (kind, from, to) = match parts {
                Some((kind, (from, to))) if !from.trim().is_empty() => (kind, from.trim(), to),
                _ => {
                    return Err(format!(
                        "'{rule}' is no rule: write uid:FROM=TO or gid:FROM=TO, as in uid:1000=0 \
                         or gid:*=100"
                    ));
                }
            };
            let rules = match kind.trim() {
                "uid" => &mut map.users,
                "gid" => &mut map.groups,
                other => return Err(format!("'{other}' in '{rule}' is neither uid nor gid")),
            };
            rules.add(from, id(to.trim())?)?;
        }
        Ok(map)
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.users.show("uid").chain(self.groups.show("gid"));
        f.write_str(&rules.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_rule_holds() {
        let text = "uid:alice=1001,uid:1000=0,uid:2000-2999=5000,gid:*=100";
        let map: IdMap = text.parse().unwrap();
        assert_eq!(map.to_string(), text);
        let user = |number| map.users.of_number(number);
        assert_eq!([user(1000), user(2010), user(7)], [0, 5010, 7]);
        assert_eq!(map.users.of_name("alice", Some(1000)), 1001);
        assert_eq!(map.users.of_name("bob", Some(1000)), 0);
        assert_eq!(map.users.of_name("carol", None), NOBODY_HERE);
        assert_eq!(map.groups.of_number(0), 100);
        assert_eq!(map.groups.of_name("x", None), 100);
        let all: IdMap = "uid:*=5, uid:0=0".parse().unwrap();
        assert_eq!([all.users.of_number(0), all.users.of_number(1)], [0, 5]);
        assert!("".parse::<IdMap>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_rule_or_contradicts_another_is_refused_with_the_fix() {
        for (text, words) in [
            ("1000=0", "uid:1000=0"),
            ("uid:=0", "uid:FROM=TO"),
            ("uid:1000", "uid:FROM=TO"),
            ("user:a=0", "neither uid nor gid"),
            ("uid:1000=root", "'root' is not an id"),
            ("uid:4294967295=0", "not an id"),
            ("uid:1=2,uid:1=3", "overlap"),
            ("uid:1-9=0,uid:5=3", "'5' and '1-9' overlap"),
            ("uid:*=2,uid:*=3", "two rules"),
            ("gid:staff=2,gid:staff=2", "two rules"),
            ("uid:9-1=0", "ends before"),
            ("uid:0-9=4294967290", "goes past"),
        ] {
            let error = text.parse::<IdMap>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
