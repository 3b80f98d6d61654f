//! Personal data and secrets in texts, by pattern and checksum, and texts without them.
//!
//! | kind | what is found |
//! |---|---|
//! | e-mail | `name@host.tld` |
//! | phone | `+` and 8 to 15 digits; `(212) 555-0100`, `212-555-0100`; a leading 0 and 9 to 12 digits in groups |
//! | card | 13 to 16 or 19 digits that begin with 2 to 6 and pass Luhn's check (ISO/IEC 7812-1) |
//! | IBAN | two letters, two check digits and an account number, remainder 1 modulo 97 (ISO 13616) |
//! | IP | IPv4 and IPv6 addresses, other than loopback and unspecified ones |
//! | key | keys of well-known services by their prefix, JSON web tokens, private keys, and what is assigned to `api_key`, `secret`, `token` or `password` |
//!
//! Names, addresses and whatever has no pattern are not found.

use regex::Regex;
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

/// What kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A key to a service, a token, a password.
    Key,
    /// An e-mail address.
    Email,
    /// The number of a bank account.
    Iban,
    /// The number of a payment card.
    Card,
    /// The address of a machine.
    Ip,
    /// A telephone number.
    Phone,
}

impl Kind {
    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Email => "e-mail",
            Self::Iban => "IBAN",
            Self::Card => "card",
            Self::Ip => "IP",
            Self::Phone => "phone",
        }
    }

    /// What stands in its place in a text it was taken out of.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Key => "[KEY]",
            Self::Email => "[EMAIL]",
            Self::Iban => "[IBAN]",
            Self::Card => "[CARD]",
            Self::Ip => "[IP]",
            Self::Phone => "[PHONE]",
        }
    }
}

/// Personal data at its place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub range: Range<usize>,
}

struct Pattern {
    kind: Kind,
    pattern: Regex,
    /// What the pattern alone cannot say.
    is_valid: fn(&str) -> bool,
    /// A byte that every match has, so that most texts need no search.
    needs: fn(u8) -> bool,
}

/// In order: of two that overlap the one listed first is meant.
static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let pattern = |kind, pattern: &str, is_valid, needs| Pattern {
        kind,
        pattern: Regex::new(pattern).expect("the pattern is fixed"),
        is_valid,
        needs,
    };
    let digit = |byte: u8| byte.is_ascii_digit();
    vec![
        pattern(
            Kind::Key,
            r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|[sr]k_live_[A-Za-z0-9]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+)|-----BEGIN [A-Z ]*PRIVATE KEY-----",
            |_| true,
            |byte| byte == b'_' || byte == b'-' || byte == b'A' || byte == b'.',
        ),
        pattern(
            Kind::Key,
            r#"(?i)\b(?:api[_-]?key|access[_-]?key|secret|token|password|passwd)["']?\s*[:=]\s*["']?[A-Za-z0-9_/+-]{12,}"#,
            // A word is no password of a machine.
            |text| text.bytes().any(|byte| byte.is_ascii_digit()),
            |byte| byte == b'=' || byte == b':',
        ),
        pattern(
            Kind::Email,
            r"(?i)\b[a-z0-9][a-z0-9._%+-]*@[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\.[a-z]{2,}\b",
            |_| true,
            |byte| byte == b'@',
        ),
        pattern(Kind::Iban, r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", is_iban, digit),
        pattern(Kind::Card, r"\b[2-6](?:[ -]?[0-9]){12,18}\b", is_card, digit),
        pattern(Kind::Ip, r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b", is_ipv4, |byte| byte == b'.'),
        pattern(Kind::Ip, r"(?i)\b[0-9a-f]{1,4}:[0-9a-f:]{2,34}[0-9a-f]\b", is_ipv6, |byte| byte == b':'),
        pattern(Kind::Phone, r"\+[0-9](?:[ .()/-]{0,2}[0-9]){7,14}\b", |_| true, |byte| byte == b'+'),
        pattern(Kind::Phone, r"\([2-9][0-9]{2}\) ?[0-9]{3}[ .-][0-9]{4}\b", |_| true, digit),
        pattern(Kind::Phone, r"\b[2-9][0-9]{2}([.-])[0-9]{3}[.-][0-9]{4}\b", |_| true, digit),
        pattern(Kind::Phone, r"\b0[0-9]{1,4}[ /-][0-9]{3,8}(?:[ -][0-9]{2,8}){0,3}\b", is_national, digit),
    ]
});

/// The personal data in a text, from left to right; none overlaps another.
///
/// ```
/// use kiln_audit::personal::{find, redacted};
///
/// let text = "Write to ann@example.org or call +44 20 7946 0958.";
/// assert_eq!(find(text).len(), 2);
/// assert_eq!(redacted(text).as_deref(), Some("Write to [EMAIL] or call [PHONE]."));
/// ```
pub fn find(text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for Pattern { kind, pattern, is_valid, needs } in PATTERNS.iter() {
        if !text.bytes().any(needs) {
            continue;
        }
        for part in pattern.find_iter(text) {
            // A number that goes on is another number, such as a version or an amount.
            let goes_on = |next: Option<char>, beyond: Option<char>| {
                let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
                is_digit(next) || next == Some('_') || next == Some('.') && is_digit(beyond)
            };
            let (mut before, mut after) = (text[..part.start()].chars().rev(), text[part.end()..].chars());
            let is_number = !matches!(kind, Kind::Key | Kind::Email);
            let is_part = is_number && (goes_on(before.next(), before.next()) || goes_on(after.next(), after.next()));
            if is_part || !is_valid(part.as_str()) {
                continue;
            }
            if found.iter().all(|other| part.end() <= other.range.start || other.range.end <= part.start()) {
                found.push(Found { kind: *kind, range: part.range() });
            }
        }
    }
    found.sort_by_key(|found| found.range.start);
    found
}

/// The text with a mark in place of each piece of personal data; `None` if there is none.
pub fn redacted(text: &str) -> Option<String> {
    let found = find(text);
    if found.is_empty() {
        return None;
    }
    let (mut clean, mut end) = (String::with_capacity(text.len()), 0);
    for Found { kind, range } in found {
        clean += &text[end..range.start];
        clean += kind.mark();
        end = range.end;
    }
    Some(clean + &text[end..])
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Luhn's check (ISO/IEC 7812-1, Annex B): every second digit from the right is doubled, the digits of all sum to a multiple of 10.
fn is_card(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match place % 2 {
            0 => digit,
            _ => 2 * digit % 10 + 2 * digit / 10,
        })
        .sum();
    matches!(digits.len(), 13..=16 | 19) && sum.is_multiple_of(10) && digits.iter().any(|&digit| digit != digits[0])
}

/// ISO 13616: country and check digits go to the end, letters count from 10, and the number leaves 1 modulo 97.
fn is_iban(text: &str) -> bool {
    let compact: Vec<char> = text.chars().filter(|c| *c != ' ').collect();
    let moved = compact[4..].iter().chain(&compact[..4]);
    let remainder = moved.fold(0, |remainder, c| {
        let value = c.to_digit(36).unwrap_or(0);
        (remainder * if value > 9 { 100 } else { 10 } + value) % 97
    });
    (15..=34).contains(&compact.len()) && remainder == 1
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_broadcast() && ip.octets()[0] != 0)
}

fn is_ipv6(text: &str) -> bool {
    text.split(':').filter(|part| !part.is_empty()).count() >= 3 && text.parse::<Ipv6Addr>().is_ok()
}

fn is_national(text: &str) -> bool {
    (9..=12).contains(&digits(text).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        find(text).into_iter().map(|found| found.kind).collect()
    }

    #[test]
    fn each_kind_is_found_in_its_forms() {
        for (kind, texts) in [
            (Kind::Email, &["mail ann.lee+x@mail.example.co.uk now", "<a_b@example.org>"][..]),
            (
                Kind::Phone,
                &["+49 (0)30 901820", "call 212-555-0175.", "(212) 555-0175", "+14155550132", "Tel. 030 90182000", "0171/2345 678"],
            ),
            // The numbers that card makers publish for tests.
            (Kind::Card, &["4111 1111 1111 1111", "5555555555554444", "paid with 3782-822463-10005!", "6011111111111117"]),
            (Kind::Iban, &["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "IBAN: FR14 2004 1010 0505 0001 3M02 606"]),
            (Kind::Ip, &["from 203.0.113.9,", "2001:db8::8a2e:370:7334 said", "host fe80:0:0:0:1:2:3:4"]),
            (Kind::Key, &["AKIAIOSFODNN7EXAMPLE", "api_key = \"9f8e7d6c5b4a3210ff\"", "-----BEGIN RSA PRIVATE KEY-----"]),
        ] {
            for text in texts {
                assert_eq!(kinds(text), [kind], "{text}");
            }
        }
    }

    #[test]
    fn numbers_that_mean_something_else_are_left_alone() {
        for text in [
            "4111 1111 1111 1112",
            "DE89 3704 0044 0532 0130 01",
            "0000 0000 0000 0000",
            "on 2024-01-15 at 12:30:45 there were 1,234,567.89",
            "version 10.2.3 and 1.2.3.4.5, 256.1.1.1, 127.0.0.1, 0.0.0.0",
            "std::vec::Vec and a::b, ratio 3:2:1, Genesis 1:1",
            "she paid $1500 for 200-300 pieces, 555-0175 ext",
            "me@home, @user, a @ b.c",
            "password: please choose one; the secret: honesty",
            "3.14159265358979323846, 1234567890123456789",
            "ISBN 978-3-16-148410-0, 1990-2000, 0.5 - 0.75",
            "token = next(tokens)",
        ] {
            assert!(kinds(text).is_empty(), "{text}: {:?}", find(text));
        }
    }

    #[test]
    fn what_is_found_is_marked_and_nothing_is_left_of_it() {
        let text = "Ünal: ü@example.com? no: uenal@example.com, 4111111111111111, +33 1 42 68 53 00.";
        let clean = redacted(text).unwrap();
        assert_eq!(clean, "Ünal: ü@example.com? no: [EMAIL], [CARD], [PHONE].");
        assert_eq!(redacted(&clean), None);
        assert_eq!(redacted("nothing here"), None);
    }

    #[test]
    fn one_wrong_digit_breaks_a_checksum() {
        let (card, iban) = ("4242424242424242", "NL91ABNA0417164300");
        assert!(is_card(card) && is_iban(iban));
        for (text, is_valid) in [(card, is_card as fn(&str) -> bool), (iban, is_iban)] {
            for (place, digit) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
                let other = char::from_digit((digit.to_digit(10).unwrap() + 1) % 10, 10).unwrap();
                let mut wrong = text.to_owned();
                wrong.replace_range(place..place + 1, &other.to_string());
                assert!(!is_valid(&wrong), "{wrong}");
            }
        }
    }
}
