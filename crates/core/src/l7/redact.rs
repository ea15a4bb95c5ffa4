//! Takes secrets out of texts before they become part of an exchange.

use std::borrow::Cow;
use std::ops::Range;

use crate::reveal::{self, Class, Reveal};

/// What stands in a secret's place, as OpenTelemetry recommends.
pub(super) const REDACTED: &str = "REDACTED";

/// Names of parameters that hold secrets contain one of these: those that begin
/// with this letter.
fn secret_names(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &["auth"],
        b'c' => &["code", "cred", "cookie"],
        b'j' => &["jwt"],
        b'k' => &["key"],
        b'o' => &["otp"],
        b'p' => &["pass", "pwd"],
        b's' => &["secret", "session", "sessid", "sig"],
        b't' => &["token"],
        _ => &[],
    }
}

/// Whether a parameter of this name holds what no class of [`Reveal`] lets through.
fn names_password(name: &str) -> bool {
    reveal::names_password(&unescape(name))
}

/// Whether a parameter or header of this name is likely to hold a secret.
/// Percent escapes in it are read first, so that they hide nothing.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain = unescape(name);
    let mut rest = plain.as_bytes();
    while let [first, tail @ ..] = rest {
        let begins = |word: &&str| {
            rest.get(..word.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(word.as_bytes()))
        };
        if secret_names(first.to_ascii_lowercase()).iter().any(begins) {
            return true;
        }
        rest = tail;
    }
    false
}

/// A URL, or the part of it that requests name: redacted, except for what may
/// be shown; and whether any of that was in it.
pub(super) fn url_but(url: &str, reveal: Reveal) -> (Cow<'_, str>, bool) {
    let redacted = self::url(url);
    if !reveal.has(Class::QueryStrings) {
        return (redacted, false);
    }
    let shown = url_by(url, names_password);
    let differs = shown != redacted;
    (shown, differs)
}

/// A URL, or the part of it that requests name: without user and password, and
/// without the values of parameters that are likely to be secrets.
pub(super) fn url(url: &str) -> Cow<'_, str> {
    url_by(url, is_secret_name)
}

fn url_by(url: &str, hides: fn(&str) -> bool) -> Cow<'_, str> {
    // What hides nothing, as most do, is not copied.
    let mut redacted = Redacted { given: url, text: String::new(), copied: 0 };
    let mut from = 0;
    if let Some(scheme) = scheme_bytes(url) {
        let rest = url.get(scheme..).unwrap_or_default();
        from = scheme + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = url.get(scheme..from).unwrap_or_default();
        if let Some(user_bytes) = authority.rfind('@') {
            redacted.replace(scheme..scheme + user_bytes, &[REDACTED, ":", REDACTED]);
        }
    }
    // Parameters stand between these, in paths too (`;jsessionid=...`).
    while from < url.len() {
        let rest = url.get(from..).unwrap_or_default();
        let length = rest.bytes().position(|byte| matches!(byte, b'?' | b'&' | b';' | b'#'));
        let end = from + length.unwrap_or(rest.len());
        if let Some((name, value)) = url.get(from..end).and_then(|parameter| parameter.split_once('='))
            && !value.is_empty()
            && hides(name)
        {
            redacted.replace(from + name.len() + 1..end, &[REDACTED]);
        }
        from = end + 1;
    }
    redacted.into_text()
}

/// The length of `http://`, if the URL begins with something like that.
fn scheme_bytes(url: &str) -> Option<usize> {
    // In a path or a query it separates no scheme.
    let path = url.bytes().position(|byte| matches!(byte, b'/' | b'?' | b'#'))?;
    let (before, rest) = url.split_at_checked(path)?;
    (before.ends_with(':') && rest.starts_with("//")).then_some(path + 2)
}

/// A text in which parts are replaced.
struct Redacted<'a> {
    given: &'a str,
    text: String,
    /// How much of what was given is in the text, as it is or replaced.
    copied: usize,
}

impl<'a> Redacted<'a> {
    /// Ranges do not overlap, and come in order.
    fn replace(&mut self, range: Range<usize>, by: &[&str]) {
        self.text.push_str(self.given.get(self.copied..range.start).unwrap_or_default());
        by.iter().for_each(|part| self.text.push_str(part));
        self.copied = range.end;
    }

    fn into_text(mut self) -> Cow<'a, str> {
        if self.text.is_empty() {
            return Cow::Borrowed(self.given);
        }
        self.text.push_str(self.given.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.text)
    }
}

/// `host:port` without user and password.
pub(super) fn authority(authority: &str) -> Cow<'_, str> {
    match authority.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{REDACTED}:{REDACTED}@{host}")),
        None => Cow::Borrowed(authority),
    }
}

/// Without percent escapes.
pub(super) fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |index: usize| tail.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_of_urls() {
        for (given, expected) in [
            ("/orders/17?page=2&sort=asc", "/orders/17?page=2&sort=asc"),
            ("/login?user=bob&password=hunter2", "/login?user=bob&password=REDACTED"),
            ("/a?p%61ssword=hunter2&b=c", "/a?p%61ssword=REDACTED&b=c"),
            (
                "/a?X-Amz-Signature=abc&X-Amz-Credential=def",
                "/a?X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED",
            ),
            ("/a;jsessionid=1234?q=1", "/a;jsessionid=REDACTED?q=1"),
            ("/cb#access_token=xyz", "/cb#access_token=REDACTED"),
            ("http://bob:hunter2@example.com/a?b=c", "http://REDACTED:REDACTED@example.com/a?b=c"),
            ("http://example.com", "http://example.com"),
            ("/go?to=http://bob:x@example.com", "/go?to=http://bob:x@example.com"),
            ("/a?token=", "/a?token="),
            ("/a?token=hunter2=more", "/a?token=REDACTED"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(url(given), expected, "{given}");
        }
        assert_eq!(authority("bob:hunter2@db:80"), "REDACTED:REDACTED@db:80");
    }

    #[test]
    fn what_may_be_shown_is_and_passwords_are_not() {
        let all: Reveal = Class::ALL.into_iter().collect();
        for (given, expected, revealed) in [
            ("/a?key=hunter2&sid=3", "/a?key=hunter2&sid=3", true),
            ("/a?password=hunter2", "/a?password=REDACTED", false),
            ("/a?p%61ssword=hunter2&code=x", "/a?p%61ssword=REDACTED&code=x", true),
            ("/a?client_secret=hunter2", "/a?client_secret=REDACTED", false),
            ("http://bob:hunter2@example.com/a", "http://REDACTED:REDACTED@example.com/a", false),
        ] {
            assert_eq!(url_but(given, all), (expected.into(), revealed), "{given}");
            assert_eq!(url_but(given, Reveal::NOTHING), (url(given), false), "{given}");
        }
    }

    #[test]
    fn broken_escapes_and_letters_of_many_bytes_are_survived() {
        for name in ["%", "%4", "%zz", "é%41", "%e9", "\u{202e}"] {
            is_secret_name(name);
            url(&format!("/{name}?{name}={name}&ü=ö"));
        }
    }
}
