//! Attributes of a query, which stand before its text: found only to be passed
//! over, for they are values.

use super::wire::Reader;

/// What follows the attributes; `None` if they do not end in these bytes.
pub(super) fn skip(body: &[u8]) -> Option<&[u8]> {
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
        let is_null = nulls.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0);
        if !is_null {
            value(&mut reader, kind)?;
        }
    }
    Some(reader.rest)
}

fn value(reader: &mut Reader<'_>, kind: u16) -> Option<()> {
    // The highest bit says that it has no sign.
    let count = match kind & 0x7fff {
        6 => 0,
        1 | 244 => 1,
        2 | 13 => 2,
        3 | 4 | 9 => 4,
        5 | 8 => 8,
        // Dates and times say their length in one byte.
        7 | 10..=12 => usize::from(reader.byte()?),
        _ => return reader.counted().map(|_| ()),
    };
    reader.bytes(count).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_passed_over() {
        assert_eq!(skip(b"\0\x01SELECT 1"), Some(&b"SELECT 1"[..]));
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
        assert_eq!(skip(&body), Some(&b"SELECT 2"[..]));
        for length in 0..body.len() - 8 {
            assert_eq!(skip(&body[..length]), None, "{length}");
        }
        assert_eq!(skip(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 127, 1, 0]), None);
    }
}
