//! Takes secrets out of texts before they become part of an exchange.

use crate::reveal::{self, Class, Reveal};

/// What stands in a secret's place, as OpenTelemetry recommends.
pub(super) const REDACTED: &str = "REDACTED";

/// Names of parameters that hold secrets contain one of these.
const SECRET_NAMES: [&str; 14] = [
    "pass", "pwd", "token", "secret", "key", "auth", "session", "sessid", "code", "jwt", "sig", "cred",
    "otp", "cookie",
];

/// Whether a parameter of this name holds what no class of [`Reveal`] lets through.
fn names_password(name: &str) -> bool {
    reveal::names_password(&unescape(name))
}

/// Whether a parameter or header of this name is likely to hold a secret.
/// Percent escapes in it are read first, so that they hide nothing.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain = unescape(name).to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| plain.contains(part))
}

/// A URL, or the part of it that requests name: redacted, except for what may
/// be shown; and whether any of that was in it.
pub(super) fn url_but(url: &str, reveal: Reveal) -> (String, bool) {
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
pub(super) fn url(url: &str) -> String {
    url_by(url, is_secret_name)
}

fn url_by(url: &str, hides: fn(&str) -> bool) -> String {
    let (scheme, rest) = match url.find("://") {
        // In a path or a query it separates no scheme.
        Some(at) if !url.get(..at).unwrap_or_default().contains(['/', '?', '#']) => url.split_at(at + 3),
        _ => ("", url),
    };
    let mut redacted = String::with_capacity(url.len());
    redacted.push_str(scheme);
    let mut rest = rest;
    if !scheme.is_empty() {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        redacted.push_str(&self::authority(authority));
        rest = path;
    }
    // Parameters stand between these, in paths too (`;jsessionid=...`).
    let mut from = 0;
    for (at, separator) in rest.match_indices(['?', '&', ';', '#']) {
        push_parameter(&mut redacted, rest.get(from..at).unwrap_or_default(), hides);
        redacted.push_str(separator);
        from = at + separator.len();
    }
    push_parameter(&mut redacted, rest.get(from..).unwrap_or_default(), hides);
    redacted
}

/// `host:port` without user and password.
pub(super) fn authority(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{REDACTED}:{REDACTED}@{host}"),
        None => authority.to_owned(),
    }
}

fn push_parameter(redacted: &mut String, parameter: &str, hides: fn(&str) -> bool) {
    match parameter.split_once('=') {
        Some((name, value)) if !value.is_empty() && hides(name) => {
            redacted.push_str(name);
            redacted.push('=');
            redacted.push_str(REDACTED);
        }
        _ => redacted.push_str(parameter),
    }
}

/// Without percent escapes.
pub(super) fn unescape(name: &str) -> String {
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
    String::from_utf8_lossy(&bytes).into_owned()
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
            assert_eq!(url_but(given, all), (expected.to_owned(), revealed), "{given}");
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
