//! Reads heads that lie whole and flawless at the beginning of some bytes, as nearly all
//! do, in one pass. It takes what `httparse` takes: a test holds one against the other.

use super::head::Head;

/// As many headers as servers accept.
const HEADERS_MAX: usize = 128;
const DELETE: u8 = 0x7f;

/// A request's first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a str,
    /// Of HTTP/1.
    pub(super) minor_version: u8,
}

/// An answer's first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered<'a> {
    pub(super) minor_version: u8,
    pub(super) status: u16,
    pub(super) reason: &'a [u8],
}

/// A request's head, and how long it is.
pub(super) fn request(bytes: &[u8]) -> Option<(Asked<'_>, Head<'_>, usize)> {
    let line = after_blank_lines(bytes);
    let method_bytes = name_bytes(line);
    let (method, rest) = line.split_at_checked(method_bytes).filter(|_| method_bytes > 0)?;
    let rest = rest.strip_prefix(b" ")?;
    let target_bytes = text_bytes::<b'!'>(rest);
    let (target, rest) = rest.split_at_checked(target_bytes).filter(|_| target_bytes > 0)?;
    let (minor_version, rest) = version(rest.strip_prefix(b" ")?)?;
    let (head, rest) = headers(after_line_end(rest)?)?;
    let asked = Asked { method, target: std::str::from_utf8(target).ok()?, minor_version };
    Some((asked, head, bytes.len() - rest.len()))
}

/// An answer's head, and how long it is.
pub(super) fn response(bytes: &[u8]) -> Option<(Answered<'_>, Head<'_>, usize)> {
    let (minor_version, rest) = version(after_blank_lines(bytes))?;
    let [b' ', hundreds, tens, ones, rest @ ..] = rest else { return None };
    let mut status = 0;
    for digit in [hundreds, tens, ones] {
        status = status * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    let (reason, rest) = match rest {
        [b' ', rest @ ..] => rest.split_at_checked(line_bytes(rest))?,
        rest => (&[] as &[u8], rest),
    };
    let (head, rest) = headers(after_line_end(rest)?)?;
    Some((Answered { minor_version, status, reason }, head, bytes.len() - rest.len()))
}

/// Reads headers up to the empty line; what stands after it.
fn headers(bytes: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let mut head = Head::default();
    let mut rest = bytes;
    for _ in 0..HEADERS_MAX + 1 {
        if let Some(after) = after_line_end(rest) {
            head.finish();
            return Some((head, after));
        }
        let name_bytes = name_bytes(rest);
        let (name, value) = rest.split_at_checked(name_bytes).filter(|_| name_bytes > 0)?;
        let value = value.strip_prefix(b":")?;
        let (value, line_end) = value.split_at_checked(line_bytes(value))?;
        rest = after_line_end(line_end)?;
        head.header(name, value);
    }
    None
}

fn version(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes.split_first_chunk()? {
        (b"HTTP/1.1", rest) => Some((1, rest)),
        (b"HTTP/1.0", rest) => Some((0, rest)),
        _ => None,
    }
}

/// What stands after the end of a line, if there is one here.
fn after_line_end(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

fn after_blank_lines(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some(after) = after_line_end(rest) {
        rest = after;
    }
    rest
}

/// How many bytes may be part of a method's or a header's name.
#[inline]
fn name_bytes(bytes: &[u8]) -> usize {
    let is = |byte: &u8| IN_NAMES[usize::from(*byte)];
    let (fours, _) = bytes.as_chunks();
    let whole = fours.iter().position(|[a, b, c, d]| !(is(a) & is(b) & is(c) & is(d)));
    let rest = bytes.get(4 * whole.unwrap_or(fours.len())..).unwrap_or_default();
    bytes.len() - rest.len() + rest.iter().position(|byte| !is(byte)).unwrap_or(rest.len())
}

/// How many bytes may be part of a header's value: up to the line's end, if that is as it should be.
#[inline]
fn line_bytes(bytes: &[u8]) -> usize {
    let end = text_bytes::<b' '>(bytes);
    if bytes.get(end) == Some(&b'\t') { line_bytes_with_tabs(bytes, end) } else { end }
}

#[cold]
fn line_bytes_with_tabs(bytes: &[u8], first: usize) -> usize {
    let mut end = first;
    while let Some([b'\t', rest @ ..]) = bytes.get(end..) {
        end += 1 + text_bytes::<b' '>(rest);
    }
    end
}

/// How many bytes stand before the first one that is below `LOWEST`, which is ASCII, or
/// [`DELETE`].
#[inline]
fn text_bytes<const LOWEST: u8>(bytes: &[u8]) -> usize {
    let (eights, rest) = bytes.as_chunks();
    let mut at = 0;
    for eight in eights {
        // Of the differences, those that go below zero have their highest bit set where the byte has it
        // not. The lowest of them is right; above it, there may be more because of what was borrowed.
        let eight = u64::from_le_bytes(*eight);
        let below = eight.wrapping_sub(each(LOWEST));
        let deletes = (eight ^ each(DELETE)).wrapping_sub(each(1));
        let found = (below | deletes) & !eight & each(0x80);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + rest.iter().position(|byte| *byte < LOWEST || *byte == DELETE).unwrap_or(rest.len())
}

/// Eight times this byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Of each byte, whether names may have it (RFC 9110, 5.6.2).
static IN_NAMES: [bool; 256] = {
    let mut in_names = [false; 256];
    let mut byte = 0_u8;
    while byte < DELETE {
        in_names[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte += 1;
    }
    in_names
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, as `httparse` reads it.
    fn parsed_request(bytes: &[u8]) -> Option<(Asked<'_>, Head<'_>, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        let (method, target) = (parsed.method?, parsed.path?);
        let method = method.as_bytes();
        Some((Asked { method, target, minor_version: parsed.version? }, head(parsed.headers), length))
    }

    fn parsed_response(bytes: &[u8]) -> Option<(Answered<'_>, Head<'_>, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
        let (minor_version, status) = (parsed.version?, parsed.code?);
        let reason = parsed.reason.unwrap_or_default().as_bytes();
        Some((Answered { minor_version, status, reason }, head(parsed.headers), length))
    }

    fn head<'a>(headers: &[httparse::Header<'a>]) -> Head<'a> {
        let mut head = Head::default();
        headers.iter().for_each(|header| head.header(header.name.as_bytes(), header.value));
        head.finish();
        head
    }

    fn agree(bytes: &[u8]) {
        assert_eq!(request(bytes), parsed_request(bytes), "{}", bytes.escape_ascii());
        let mut answer = response(bytes);
        if let Some((line, ..)) = answer.as_mut().filter(|(line, ..)| !line.reason.is_ascii()) {
            line.reason = b""; // as httparse tells it
        }
        assert_eq!(answer, parsed_response(bytes), "{}", bytes.escape_ascii());
    }

    const LINES: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n",
        b"POST /a%20b?c=\xc3\xa9 HTTP/1.0\n",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 404 Not\tFound \n",
        b"HTTP/1.1 500\r\n",
        b"HTTP/1.1 503 \xe9\r\n",
        b"",
    ];

    #[test]
    fn every_byte_in_every_place_is_read_as_httparse_does() {
        let headers =
            b"Host: shop.test:80\r\nUser-Agent:\t a \xe9 b \t\r\nExpect: 100-continue\r\nUpgrade:x\r\n\
            Transfer-Encoding: chunked\r\nContent-Length: 17\r\nX:\r\n\r\nrest of it";
        for line in LINES {
            let head = [line, headers].concat();
            (0..=head.len()).for_each(|end| agree(&head[..end]));
            for place in 0..head.len() {
                for byte in 0..=255 {
                    let mut head = head.clone();
                    head[place] = byte;
                    agree(&head);
                    head.insert(place, b'\r');
                    agree(&head);
                }
            }
        }
    }

    #[test]
    fn so_many_headers_and_no_more() {
        for count in [HEADERS_MAX - 1, HEADERS_MAX, HEADERS_MAX + 1] {
            for line in LINES {
                let head = [line, &b"Host: a\r\n".repeat(count), b"\r\n"].concat();
                agree(&head);
                assert_eq!(
                    request(&head).is_some(),
                    line.contains(&b'/') && !line.starts_with(b"HTTP") && count <= HEADERS_MAX
                );
            }
        }
    }

    proptest! {
        #[test]
        fn heads_are_read_as_httparse_does(
            pieces in proptest::collection::vec(prop::sample::select(vec![
                &b"Host"[..], b"host: a", b"content-length: 1", b"Content-Length:1,2", b"x", b":", b": ", b" ", b"\t", b"\r\n",
                b"\r\n", b"\r\n", b"\n", b"\r", b"\0", b"\x7f", b"\xc3\xa9", b"\xe9", b"GET ", b"HTTP/1.1", b" 200 ", b"/", b"\x80\x7f",
                b"Transfer-Encoding: chunked\r\n", b"upgrade: h2c\r\n", b"12345678", b"1234567\t", b"\x1f",
            ]), 0..16),
            line in prop::sample::select(LINES.to_vec()),
        ) {
            agree(&[line, &pieces.concat()].concat());
        }

        #[test]
        fn texts_end_at_the_first_other_byte(bytes: Vec<u8>, common in proptest::collection::vec(0x1f_u8..0x82, 0..40)) {
            for bytes in [bytes, common] {
                let first = |lowest| bytes.iter().position(|byte| *byte < lowest || *byte == DELETE);
                prop_assert_eq!(text_bytes::<b' '>(&bytes), first(b' ').unwrap_or(bytes.len()));
                prop_assert_eq!(text_bytes::<b'!'>(&bytes), first(b'!').unwrap_or(bytes.len()));
            }
        }
    }
}
