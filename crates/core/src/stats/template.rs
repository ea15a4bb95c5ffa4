//! Texts that are alike but for a number: what they have in common.

use std::borrow::Cow;

/// In place of what differs.
const ID: &str = "{id}";
/// Digits in hexadecimal, with at least one that is no letter: an id, not a word.
const HEX_DIGITS_MIN: usize = 8;
/// A word this long with a digit in it is an id.
const MIXED_LENGTH_MIN: usize = 20;
/// A word this long is no word.
const LENGTH_MIN: usize = 32;
/// Digits at the end of a word that are its number: `user17`, but `utf8`, `v1`.
const LAST_DIGITS_MIN: usize = 2;

/// The text with `{id}` in place of numbers, UUIDs, digests and tokens, so
/// that what was asked for of the same kind becomes the same text:
/// `/orders/17` is `/orders/{id}`, `user:4711:name` is `user:{id}:name`.
#[must_use]
pub fn template(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = after_uuid(rest) {
            push_id(&mut made);
            rest = after;
            continue;
        }
        let end = rest.find(|character| !is_of_word(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        push_word(&mut made, word);
        let mut characters = after.chars();
        made.extend(characters.next());
        rest = characters.as_str();
    }
    made
}

/// A statement whose lists of literals differ only in length becomes the same:
/// `IN (?, ?, ?)` is `IN (?, …)`, and the further rows of `VALUES` are `…`. A semicolon at its
/// end is gone.
#[must_use]
pub fn statement(text: &str) -> String {
    let shortened = shorten_lists(text.trim_end_matches([';', ' ']), "?", "…");
    shorten_lists(&shortened, "(?, …)", "…").into_owned()
}

/// Where `item` stands twice or more, with nothing but a comma between, the
/// second and further ones are `mark`.
fn shorten_lists<'a>(text: &'a str, item: &str, mark: &str) -> Cow<'a, str> {
    let mut made = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(item) {
        let (before, after) = rest.split_at(start + item.len());
        made.push_str(before);
        rest = after;
        let mut more = false;
        while let Some(next) = rest.trim_start().strip_prefix(',').map(str::trim_start)
            && let Some(after) = next.strip_prefix(item)
        {
            rest = after;
            more = true;
        }
        if more {
            made.push_str(", ");
            made.push_str(mark);
        }
    }
    if made.is_empty() {
        return Cow::Borrowed(text);
    }
    made.push_str(rest);
    Cow::Owned(made)
}

/// Escapes of URLs are of the word that they stand in.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '%'
}

fn push_word(made: &mut String, word: &str) {
    if is_id(word) {
        return push_id(made);
    }
    let stem = word.trim_end_matches(|character: char| character.is_ascii_digit());
    if word.len() - stem.len() >= LAST_DIGITS_MIN && !stem.contains('%') {
        made.push_str(stem);
        made.push_str(ID);
    } else {
        made.push_str(word);
    }
}

/// `2026-11-22` is one id, not three.
fn push_id(made: &mut String) {
    let joined = made.strip_suffix(['-', '_', '.', ',']).is_some_and(|before| before.ends_with(ID));
    if joined {
        made.pop();
    } else {
        made.push_str(ID);
    }
}

fn is_id(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let all = |test: fn(&u8) -> bool| word.bytes().all(|byte| test(&byte));
    match word.len() {
        0 => false,
        LENGTH_MIN.. => true,
        MIXED_LENGTH_MIN.. if has_digit => true,
        HEX_DIGITS_MIN.. if has_digit && all(u8::is_ascii_hexdigit) => true,
        _ => all(u8::is_ascii_digit),
    }
}

/// What stands behind the UUID with which the text begins.
fn after_uuid(text: &str) -> Option<&str> {
    let (uuid, after) = text.split_at_checked(36)?;
    let is_uuid = uuid.bytes().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (is_uuid && !after.starts_with(is_of_word)).then_some(after)
}
