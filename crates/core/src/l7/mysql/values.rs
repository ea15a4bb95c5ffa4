//! Values in their binary form: attributes of a query, found only to be passed
//! over, and those bound to a statement, read only where they may be shown.

use super::wire::{Reader, lossy};

/// Values that are shown of one execution, if any may be.
const VALUES_MAX: usize = 32;
/// Of each.
const VALUE_BYTES_MAX: usize = 256;
/// In an execution's flags: the number of parameters is told.
const IS_COUNTED: u8 = 8;

/// What follows the attributes of a query; `None` if they do not end in these
/// bytes.
pub(super) fn skip_attributes(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.number()?).ok()?;
    let _sets = reader.number()?;
    if count == 0 {
        return Some(reader.rest);
    }
    let nulls = reader.bytes(count.div_ceil(8))?;
    let types_follow = reader.byte()? == 1;
    if !types_follow {
        return None;
    }
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(reader.short()?);
        let _name = reader.counted()?;
    }
    for (index, kind) in types.into_iter().enumerate() {
        if !is_null(nulls, index) {
            value(&mut reader, kind)?;
        }
    }
    Some(reader.rest)
}

fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

/// The bytes of a value of this type.
fn value<'a>(reader: &mut Reader<'a>, kind: u16) -> Option<&'a [u8]> {
    // The highest bit says that it has no sign.
    let count = match kind & 0x7fff {
        6 => 0,
        1 | 244 => 1,
        2 | 13 => 2,
        3 | 4 | 9 => 4,
        5 | 8 => 8,
        // Dates and times say their length in one byte.
        7 | 10..=12 => usize::from(reader.byte()?),
        _ => return reader.counted(),
    };
    reader.bytes(count)
}

/// What an execution binds to its statement's parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// Their types, if they are told: the next executions may leave them out.
    pub(super) types: Vec<u16>,
    /// As text: as many as came, within limits.
    pub(super) texts: Vec<String>,
}

/// Reads an execution from after the statement's number on. `types` are those
/// that were told last; `has_names`: names stand beside types.
pub(super) fn bound(body: &[u8], parameters: u16, types: &[u16], has_names: bool) -> Option<Bound> {
    let mut reader = Reader::new(body);
    let flags = reader.byte()?;
    let _iterations = reader.long()?;
    let mut count = usize::from(parameters);
    if has_names && flags & IS_COUNTED != 0 {
        count = usize::try_from(reader.number()?).ok()?;
    }
    if count == 0 {
        return Some(Bound::default());
    }
    let nulls = reader.bytes(count.div_ceil(8))?;
    let mut bound = Bound::default();
    if reader.byte()? == 1 {
        for _ in 0..count {
            bound.types.push(reader.short()?);
            if has_names {
                reader.counted()?;
            }
        }
        bound.types.truncate(VALUES_MAX);
    } else {
        bound.types = types.to_vec();
    }
    for (index, kind) in bound.types.iter().enumerate().take(count) {
        if is_null(nulls, index) {
            bound.texts.push("NULL".to_owned());
            continue;
        }
        let Some(bytes) = value(&mut reader, *kind) else { break };
        bound.texts.push(text(bytes, *kind));
    }
    if bound.texts.len() < count {
        bound.texts.push("…".to_owned());
    }
    Some(bound)
}

fn text(bytes: &[u8], kind: u16) -> String {
    let has_sign = kind & 0x8000 == 0;
    let kind = kind & 0x7fff;
    match (kind, bytes) {
        (4, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]).to_string(),
        (5, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]).to_string(),
        (1..=3 | 8 | 9 | 13 | 244, _) => integer(bytes, has_sign),
        (7 | 10 | 12, _) => moment(bytes),
        (11, _) => duration(bytes),
        _ => {
            let (bytes, rest) = bytes.split_at(bytes.len().min(VALUE_BYTES_MAX));
            let mut text = match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                // It was cut inside of a letter.
                Err(error) if !rest.is_empty() && error.error_len().is_none() => {
                    lossy(bytes.get(..error.valid_up_to()).unwrap_or_default()).into()
                }
                Err(_) => hexadecimal(bytes),
            };
            if !rest.is_empty() {
                text.push('…');
            }
            text
        }
    }
}

fn integer(bytes: &[u8], has_sign: bool) -> String {
    let is_negative = has_sign && bytes.last().is_some_and(|high| high & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 8];
    wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    if has_sign { i64::from_le_bytes(wide).to_string() } else { u64::from_le_bytes(wide).to_string() }
}

/// A date, perhaps with a time.
fn moment(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let (Some(year), Some(month), Some(day)) = (reader.short(), reader.byte(), reader.byte()) else {
        return "0000-00-00".to_owned();
    };
    let date = format!("{year:04}-{month:02}-{day:02}");
    match (reader.byte(), reader.byte(), reader.byte()) {
        (Some(hour), Some(minute), Some(second)) => match reader.long() {
            Some(micros) => format!("{date} {hour:02}:{minute:02}:{second:02}.{micros:06}"),
            None => format!("{date} {hour:02}:{minute:02}:{second:02}"),
        },
        _ => date,
    }
}

/// Hours, minutes and seconds, perhaps less than none.
fn duration(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let (Some(sign), Some(days), Some(hours), Some(minutes), Some(seconds)) =
        (reader.byte(), reader.long(), reader.byte(), reader.byte(), reader.byte())
    else {
        return "00:00:00".to_owned();
    };
    let sign = if sign == 1 { "-" } else { "" };
    let hours = u64::from(days) * 24 + u64::from(hours);
    match reader.long() {
        Some(micros) => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"),
        None => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_passed_over() {
        assert_eq!(skip_attributes(b"\0\x01SELECT 1"), Some(&b"SELECT 1"[..]));
        let mut body = vec![9, 1, 0b0000_0010, 0, 1];
        for kind in [253_u16, 253, 0x8008, 3, 2, 1, 12, 6, 5] {
            body.extend_from_slice(&kind.to_le_bytes());
            body.extend_from_slice(b"\x01n");
        }
        body.extend_from_slice(b"\x06SECRET");
        body.extend_from_slice(&[0; 8 + 4 + 2 + 1]);
        body.extend_from_slice(b"\x04\x07\xe8\x01\x02");
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(b"SELECT 2");
        assert_eq!(skip_attributes(&body), Some(&b"SELECT 2"[..]));
        for length in 0..body.len() - 8 {
            assert_eq!(skip_attributes(&body[..length]), None, "{length}");
        }
        assert_eq!(skip_attributes(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 127, 1, 0]), None);
    }

    #[test]
    fn bound_values_are_read_by_their_types() {
        let mut body = vec![0, 1, 0, 0, 0, 0b0000_0010, 1];
        let kinds = [253_u16, 253, 3, 0x8001, 5, 12, 252, 11];
        kinds.iter().for_each(|kind| body.extend_from_slice(&kind.to_le_bytes()));
        body.extend_from_slice(b"\x03abc\xff\xff\xff\xff\xff");
        body.extend_from_slice(&1.5_f64.to_le_bytes());
        body.extend_from_slice(b"\x07\xea\x07\x0b\x16\x0f\x10\x11\x02\xff\0\0");
        let texts = ["abc", "NULL", "-1", "255", "1.5", "2026-11-22 15:16:17", "0xff00", "00:00:00"];
        let first = bound(&body, 8, &[], false).unwrap();
        assert_eq!(first.texts, texts);
        assert_eq!(first.types, kinds);
        // The types of the last time.
        let again = b"\0\x01\0\0\0\0\0\x02de";
        assert_eq!(bound(again, 1, &[253], false).unwrap().texts, ["de"]);
        assert_eq!(bound(&again[..8], 1, &[253], false).unwrap().texts, ["…"], "cut off");
        let named = b"\x08\x01\0\0\0\x01\0\x01\x03\0\x01n\x07\0\0\0";
        assert_eq!(bound(named, 9, &[], true).unwrap().texts, ["7"]);
        for length in 0..body.len() {
            let _ = bound(&body[..length], 8, &[], false);
            let _ = bound(&body[..length], 8, &[], true);
        }
    }
}
