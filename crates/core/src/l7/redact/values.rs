//! Values that are secrets by what stands in them, whatever they are called.

use super::Hides;
use crate::reveal::names_password;

/// Shorter words are no tokens that somebody made.
pub(super) const TOKEN_BYTES_MIN: usize = 16;

/// Whether a secret stands in a value: a token, or a URL or something else with
/// parameters, of which one bears a name that hides it.
pub(super) fn is_secret(value: &str, hides: Hides) -> bool {
    let may_hold = |byte: u8| matches!(byte, b'%' | b'=' | b':' | b'@' | b'.');
    if !value.bytes().any(may_hold) {
        return false; // as most are
    }
    let plain = super::plain(value);
    holds_json_web_token(&plain) || holds_user(&plain) || holds_parameter(&plain, hides)
}

/// Whether this may be what a program made to be guessed by nobody.
pub(super) fn looks_random(word: &str) -> bool {
    word.len() >= TOKEN_BYTES_MIN && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether a word in it is a JSON web token: its first part is an object in base 64.
fn holds_json_web_token(text: &str) -> bool {
    let is_in_words = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    text.split(|one| !is_in_words(one)).any(|word| {
        word.starts_with("eyJ") && word.split_once('.').is_some_and(|(head, _)| head.len() >= TOKEN_BYTES_MIN)
    })
}

/// Whether a URL with a user stands in it.
fn holds_user(text: &str) -> bool {
    let authority = |url: &str| url.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@'));
    text.split("//").skip(1).any(authority)
}

/// Whether a parameter stands in it whose name hides what follows: `token=...`,
/// `"key": "..."`, `password: ...`.
fn holds_parameter(text: &str, hides: Hides) -> bool {
    let mut rest = text;
    while let Some(place) = rest.find(['=', ':']) {
        let (before, mark) = rest.split_at(place);
        rest = mark.get(1..).unwrap_or_default();
        let before = before.trim_end();
        let name = before.trim_end_matches(['"', '\'', '\\']);
        let is_quoted = name.len() < before.len();
        let is_in_names = |one: char| one.is_alphanumeric() || matches!(one, '-' | '_' | '.' | '[' | ']');
        let name = name.rsplit(|one| !is_in_names(one)).next().unwrap_or_default();
        // A colon has other uses.
        let hides = if mark.starts_with('=') || is_quoted { hides } else { names_password };
        if !rest.is_empty() && hides(name) {
            return true;
        }
    }
    false
}
