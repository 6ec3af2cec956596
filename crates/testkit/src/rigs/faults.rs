// SPDX-License-Identifier: Apache-2.0
//! What a relay does to single requests: each rule says to which, and what.
//!
//! A rule looks at the head of a request, in lower case. The first one that knows a request as its
//! own decides; a rule that has been met often enough is gone.

use std::fmt;
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The relay answers with this status and this code of S3; the server does not see the request.
    Refuse(u16, &'static str),
    /// The connection is cut before the server sees the request.
    Cut,
    /// The server carries the request out, and the connection is cut instead of the answer.
    LoseAnswer,
    /// The server does not see the request, and nothing comes back.
    Silence,
    /// The server sees the request so much later.
    Late(Duration),
}

/// Which requests fail, and how.
pub(super) struct Rule {
    pub(super) is_meant: Box<dyn Fn(&str) -> bool + Send>,
    pub(super) fault: Fault,
    pub(super) left: u64,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {} requests", self.fault, self.left)
    }
}

/// Returns what becomes of the request with this head.
pub(super) fn meet(rules: &mut Vec<Rule>, head: &str) -> Option<Fault> {
    let at = rules.iter().position(|rule| (rule.is_meant)(head))?;
    let rule = &mut rules[at];
    let fault = rule.fault;
    rule.left -= 1;
    if rule.left == 0 {
        rules.remove(at);
    }
    Some(fault)
}

/// Returns the answer of a server that refuses, as S3 has it.
pub(super) fn refusal(status: u16, code: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>the relay was told to</Message></Error>"
    );
    format!(
        "HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_is_meant_decides_until_it_is_used_up() {
        let rule = |word: &'static str, fault, left| Rule {
            is_meant: Box::new(move |head: &str| head.contains(word)),
            fault,
            left,
        };
        let mut rules = vec![
            rule("put", Fault::Cut, 2),
            rule("put", Fault::Silence, u64::MAX),
        ];
        assert_eq!(meet(&mut rules, "get /a"), None);
        assert_eq!(meet(&mut rules, "put /a"), Some(Fault::Cut));
        assert_eq!(meet(&mut rules, "put /a"), Some(Fault::Cut));
        assert_eq!(meet(&mut rules, "put /a"), Some(Fault::Silence));
        assert_eq!(rules.len(), 1);
    }
}
