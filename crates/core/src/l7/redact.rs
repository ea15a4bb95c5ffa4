//! Takes secrets out of texts before they become part of an exchange.

mod values;

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr2, memrchr};

use crate::reveal::{self, Class, Reveal};

/// Whether what bears a name is to be hidden.
type Hides = fn(&str) -> bool;

/// What stands in a secret's place, as OpenTelemetry recommends.
pub(super) const REDACTED: &str = "REDACTED";

/// How often a URL in a URL in a URL is escaped.
const ESCAPED_TIMES_MAX: usize = 4;

/// Names of parameters that hold secrets contain one of these: those that begin
/// with this letter.
fn secret_names(first: u8) -> &'static [&'static str] {
    match first {
        b'a' => &["auth", "assertion"],
        b'b' => &["bearer"],
        b'c' => &["code", "cred", "cookie", "csrf"],
        b'j' => &["jwt"],
        b'k' => &["key"],
        b'n' => &["nonce"],
        b'o' => &["otp"],
        b'p' => &["pass", "pwd"],
        b's' => &["secret", "session", "sessid", "sig", "saml"],
        b't' => &["token", "ticket"],
        b'x' => &["xsrf"],
        _ => &[],
    }
}

/// Names that are too short to be looked for inside of others.
const SECRET_NAMES: [&str; 3] = ["sid", "pin", "pw"];

/// Whether a parameter of this name holds what no class of [`Reveal`] lets through.
fn names_password(name: &str) -> bool {
    reveal::names_password(&plain(name))
}

/// Whether a parameter or header of this name is likely to hold a secret.
/// Percent escapes in it are read first, so that they hide nothing.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain = plain(name);
    if SECRET_NAMES.iter().any(|word| plain.eq_ignore_ascii_case(word)) {
        return true;
    }
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
/// without the values of parameters and the parts of its path that are likely to
/// be secrets.
pub(super) fn url(url: &str) -> Cow<'_, str> {
    url_by(url, is_secret_name)
}

fn url_by(url: &str, hides: Hides) -> Cow<'_, str> {
    match plain_path_bytes(url.as_bytes()) {
        Some(path) => url_from(path + 1, path, url, hides),
        None => url_from(0, path_bytes(url), url, hides),
    }
}

/// Where the path ends.
fn path_bytes(url: &str) -> usize {
    memchr2(b'?', b'#', url.as_bytes()).unwrap_or(url.len())
}

/// The same of a path in which nothing is ever hidden, as in most: words without any marks,
/// that are too short to be tokens, and nothing that could be a URL's beginning.
fn plain_path_bytes(url: &[u8]) -> Option<usize> {
    let mut word_bytes = 0;
    for (at, byte) in url.iter().enumerate() {
        match byte {
            b'?' | b'#' => return Some(at),
            b'%' | b'=' | b':' | b'@' => return None,
            b'/' => word_bytes = 0,
            _ => word_bytes += 1,
        }
        if word_bytes >= values::TOKEN_BYTES_MIN {
            return None;
        }
    }
    Some(url.len())
}

/// The same, where nothing before `from` is to be hidden: 0, or what stands after the path.
fn url_from(from: usize, path: usize, url: &str, hides: Hides) -> Cow<'_, str> {
    // What hides nothing, as most do, is not copied.
    let mut redacted = Redacted { given: url, text: String::new(), copied: 0 };
    let mut from = from;
    if from == 0
        && let Some(scheme) = scheme_bytes(url)
    {
        from = redacted.authority(scheme);
    }
    // Parameters stand between these, in paths too (`;jsessionid=...`).
    while from < url.len() {
        let rest = url.get(from..).unwrap_or_default();
        let length = rest.bytes().position(|byte| matches!(byte, b'?' | b'&' | b';' | b'#'));
        let end = from + length.unwrap_or(rest.len());
        let parameter = url.get(from..end).unwrap_or_default();
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, value),
            None if from < path => (parameter, ""),
            None => ("", parameter),
        };
        if from < path {
            redacted.segments(from..from + name.len(), hides);
        }
        if !value.is_empty() && (hides(name) || values::is_secret(value, hides)) {
            redacted.replace(end - value.len()..end, &[REDACTED]);
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
    /// Takes user and password out of what stands after `http://`; tells where
    /// that ends.
    fn authority(&mut self, start: usize) -> usize {
        let rest = self.given.get(start..).unwrap_or_default();
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        let user = authority.rfind('@').or_else(|| {
            // What should be a port is a password, in which a slash is not escaped.
            let (_, port) = authority.rsplit_once(':')?;
            let is_port = authority.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit());
            if is_port { None } else { after.rfind('@').map(|mark| end + mark) }
        });
        let Some(user_bytes) = user else { return start + end };
        self.replace(start..start + user_bytes, &[REDACTED, ":", REDACTED]);
        start + end.max(user_bytes + 1)
    }

    /// Takes out of a part of the path: what follows the name of a secret and
    /// looks like one, and of URLs in it, user and password.
    fn segments(&mut self, range: Range<usize>, hides: Hides) {
        let path = self.given.get(range.clone()).unwrap_or_default();
        let mut before = None;
        let mut start = range.start;
        for segment in path.split('/') {
            let end = start + segment.len();
            let names_secret = || before.is_some_and(hides);
            if values::is_secret(segment, hides) || values::looks_random(segment) && names_secret() {
                self.replace(start..end, &[REDACTED]);
            } else if self.given.get(..start).is_some_and(|given| given.ends_with("//"))
                && let Some(user_bytes) = segment.rfind('@')
            {
                self.replace(start..start + user_bytes, &[REDACTED, ":", REDACTED]);
            }
            before = Some(segment);
            start = end + 1;
        }
    }

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
    match memrchr(b'@', authority.as_bytes()).and_then(|user_bytes| authority.get(user_bytes..)) {
        Some(host) => Cow::Owned(format!("{REDACTED}:{REDACTED}{host}")),
        None => Cow::Borrowed(authority),
    }
}

/// Without percent escapes, and those that were escaped themselves.
fn plain(text: &str) -> Cow<'_, str> {
    let mut plain = unescape(text);
    for _ in 1..ESCAPED_TIMES_MAX {
        if !plain.contains('%') {
            break;
        }
        plain = unescape(&plain).into_owned().into();
    }
    plain
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
    use proptest::prelude::*;

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
            ("/go?to=http://bob:x@example.com", "/go?to=REDACTED"),
            ("/go?to=http%3A%2F%2Fbob%3Ahunter2%40example.com", "/go?to=REDACTED"),
            ("/go?to=http://example.com/a@b", "/go?to=http://example.com/a@b"),
            ("/a?p%2561ssword=hunter2", "/a?p%2561ssword=REDACTED"),
            ("/a?next=%2Fcb%3Ftoken%3Dhunter2&b=c", "/a?next=REDACTED&b=c"),
            ("/a?next=%252Fcb%253Ftoken%253Dhunter2", "/a?next=REDACTED"),
            ("/a?next=%2Fb%3Fpage%3D2", "/a?next=%2Fb%3Fpage%3D2"),
            ("/a?data={\"key\":\"hunter2\"}", "/a?data=REDACTED"),
            ("/a?data=%7B%22password%22%20%3A%20%22hunter2%22%7D", "/a?data=REDACTED"),
            ("/a?query={login(password:\"hunter2\")}", "/a?query=REDACTED"),
            ("/a?x=1,token=hunter2", "/a?x=REDACTED"),
            ("/a?token%3Dhunter2", "/a?REDACTED"),
            ("/a?q=author:bob&at=12:30", "/a?q=author:bob&at=12:30"),
            ("/a?sid=hunter2&side=left", "/a?sid=REDACTED&side=left"),
            ("/a?SAMLResponse=x&ticket=y", "/a?SAMLResponse=REDACTED&ticket=REDACTED"),
            ("//bob:hunter2@example.com/a", "//REDACTED:REDACTED@example.com/a"),
            ("/proxy/http://bob:hunter2@example.com/a", "/proxy/http://REDACTED:REDACTED@example.com/a"),
            ("http://bob:hun/ter2@example.com/a", "http://REDACTED:REDACTED@example.com/a"),
            ("http://example.com:80/a@b", "http://example.com:80/a@b"),
            ("http://[::1]/a@b", "http://[::1]/a@b"),
            ("/@bob/a@b", "/@bob/a@b"),
            ("/a/b%3Ftoken%3Dhunter2/c", "/a/REDACTED/c"),
            ("/reset-password/0123456789abcdef", "/reset-password/REDACTED"),
            ("/api/tokens/17/edit", "/api/tokens/17/edit"),
            ("/users/0123456789abcdef", "/users/0123456789abcdef"),
            ("/a/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig/b", "/a/REDACTED/b"),
            ("/a?id=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "/a?id=REDACTED"),
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
            url(&format!("http://ü:{name}/ö@{name}//é@{name}?{name}:ü={name}"));
        }
    }

    proptest! {
        /// What is passed over is what would have stayed as it is.
        #[test]
        fn nothing_is_hidden_in_a_plain_path(
            words in proptest::collection::vec(prop::sample::select(vec![
                "/", "/", "/", "//", "a", "17", "token", "password", "0123456789abcdef", "0123456789abcde", "eyJhbGciOi",
                "eyJhbGciOiJIUzI1NiJ9.", ".", "..", "http:", "http://", ":", "@", "=", "%3D", "%", ";", "&", "?", "#", "\u{e9}", " ",
                "\"", "bob:hunter2@", "key", "sid=", "\0",
            ]), 0..12),
            any in "\\PC{0,40}",
        ) {
            for url in [words.concat(), any] {
                let hides_all: Hides = |_| true;
                for hides in [is_secret_name, names_password, hides_all] {
                    prop_assert_eq!(url_by(&url, hides), url_from(0, path_bytes(&url), &url, hides));
                }
            }
        }
    }
}
