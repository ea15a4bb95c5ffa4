//! Text for people: sizes, durations and counts in human units, and names made
//! safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use smol_str::SmolStr;

/// Code points that change what a terminal or a reader sees without being seen:
/// controls (C0, DEL, C1), bidirectional overrides, zero-width and other format
/// characters, variation selectors and blank fillers. Sorted, inclusive.
const INVISIBLE: [(u32, u32); 29] = [
    (0x0000, 0x001f),
    (0x007f, 0x009f),
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0xfffe, 0xffff),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
    (0xf_fffe, 0x10_ffff),
];

/// Whether a terminal would act on this character, or a reader not see it.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    let code = u32::from(character);
    // Nearly all text is plain ASCII.
    if (0x20..0x7f).contains(&code) {
        return false;
    }
    let next = INVISIBLE.partition_point(|&(_, last)| last < code);
    INVISIBLE.get(next).is_some_and(|&(first, _)| first <= code)
}

/// The text with every character of [`is_invisible`] written out, as `\x1b`
/// or `\u{202e}`. Whatever comes off the wire passes here on its way to a
/// terminal.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_invisible) else {
        return Cow::Borrowed(text);
    };
    let (plain, rest) = text.split_at(first);
    let mut safe = String::with_capacity(text.len() + 8);
    safe.push_str(plain);
    for character in rest.chars() {
        let code = u32::from(character);
        // Writing to a String cannot fail.
        let _ = match (is_invisible(character), code) {
            (false, _) => safe.write_char(character),
            (true, ..=0xff) => write!(safe, "\\x{code:02x}"),
            (true, _) => write!(safe, "\\u{{{code:x}}}"),
        };
    }
    Cow::Owned(safe)
}

/// A size in SI units: `512 B`, `1.2 kB`, `18.4 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let tenths_of = |unit: u128| (u128::from(bytes) * 10 + unit / 2) / unit;
    let (mut prefix, mut unit) = ('k', 1_000);
    for larger in ['M', 'G', 'T', 'P', 'E'] {
        if tenths_of(unit) < 10_000 {
            break;
        }
        prefix = larger;
        unit *= 1_000;
    }
    let tenths = tenths_of(unit);
    format!("{}.{} {prefix}B", tenths / 10, tenths % 10)
}

/// A duration with three digits that matter: `0.11 ms`, `12.4 ms`, `1.20 s`,
/// `3 m 20 s`, `2 h 5 m`, `4 d 3 h`. Below 10 microseconds `0.004 ms`.
#[must_use]
pub fn duration_us(us: u64) -> String {
    match us {
        0..10 => format!("0.00{us} ms"),
        10..9_995 => decimal(us, 1_000, 2, "ms"),
        9_995..99_950 => decimal(us, 1_000, 1, "ms"),
        99_950..999_500 => decimal(us, 1_000, 0, "ms"),
        999_500..9_995_000 => decimal(us, 1_000_000, 2, "s"),
        9_995_000..59_950_000 => decimal(us, 1_000_000, 1, "s"),
        _ => long_duration(us / 1_000_000 + u64::from(us % 1_000_000 >= 500_000)),
    }
}

/// As [`duration_us`]. Negative ones and those that are no number count as 0.
#[must_use]
pub fn duration_ms(ms: f64) -> String {
    // Float to integer saturates, and turns NaN into 0: both are meant.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    duration_us((ms * 1_000.0).round() as u64)
}

/// Bytes as text, with marks where they are none. As [`String::from_utf8_lossy`], but
/// fast where they are text, as nearly always.
#[must_use]
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// A number, as it is: `3204`.
#[must_use]
pub fn number(number: u64) -> SmolStr {
    // Formatting would take several times as long, and there is one in most requests.
    if let Some(text) = small_number(number) {
        return SmolStr::new_static(text);
    }
    let mut digits = [0; u64::MAX.ilog10() as usize + 1];
    let mut from = digits.len();
    let mut left = number;
    for place in (0..digits.len()).rev() {
        digits[place] = b'0' + (left % 10) as u8;
        from = place;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[from..]).unwrap_or_default().into()
}

/// One of three digits or less, as statuses are.
fn small_number(number: u64) -> Option<&'static str> {
    const DIGITS: [u8; 3_000] = {
        let mut digits = [0; 3_000];
        let mut number = 0;
        while number < 1_000 {
            digits[3 * number] = b'0' + (number / 100) as u8;
            digits[3 * number + 1] = b'0' + (number / 10 % 10) as u8;
            digits[3 * number + 2] = b'0' + (number % 10) as u8;
            number += 1;
        }
        digits
    };
    const TEXT: &str = match std::str::from_utf8(&DIGITS) {
        Ok(text) => text,
        Err(_) => "",
    };
    let end = 3 * usize::try_from(number).ok().filter(|number| *number < 1_000)? + 3;
    let length = match number {
        0..10 => 1,
        10..100 => 2,
        _ => 3,
    };
    TEXT.get(end - length..end)
}

/// A count with commas: `3,204`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `value / unit` with so many decimals, rounded half up.
fn decimal(value: u64, unit: u64, decimals: u32, name: &str) -> String {
    let scale = 10_u64.pow(decimals);
    let scaled = (value * scale + unit / 2) / unit;
    match decimals {
        0 => format!("{scaled} {name}"),
        _ => format!("{}.{:0width$} {name}", scaled / scale, scaled % scale, width = decimals as usize),
    }
}

/// The two largest units of a minute or more.
fn long_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (hours, days) {
        (0, _) => format!("{minutes} m {} s", seconds % 60),
        (_, 0) => format!("{hours} h {} m", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_one_decimal_from_kilobytes_on() {
        for (size, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_249, "1.2 kB"),
            (18_400, "18.4 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_100_000, "4.1 MB"),
            (1_000_000_000, "1.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn durations_have_three_digits_that_matter() {
        for (us, text) in [
            (0, "0.000 ms"),
            (4, "0.004 ms"),
            (10, "0.01 ms"),
            (113, "0.11 ms"),
            (9_994, "9.99 ms"),
            (9_995, "10.0 ms"),
            (12_449, "12.4 ms"),
            (99_949, "99.9 ms"),
            (99_950, "100 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (1_204_000, "1.20 s"),
            (30_000_000, "30.0 s"),
            (59_949_999, "59.9 s"),
            (59_950_000, "1 m 0 s"),
            (200_000_000, "3 m 20 s"),
            (3_599_400_000, "59 m 59 s"),
            (3_599_500_000, "1 h 0 m"),
            (7_500_000_000, "2 h 5 m"),
            (356_400_000_000, "4 d 3 h"),
        ] {
            assert_eq!(duration_us(us), text, "{us}");
        }
        assert_eq!(duration_ms(12.4449), "12.4 ms");
        assert_eq!(duration_ms(-1.0), "0.000 ms");
        assert_eq!(duration_ms(f64::NAN), "0.000 ms");
    }

    #[test]
    fn counts_have_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (3_204, "3,204"), (1_000_000, "1,000,000")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for (text, safe) in [
            ("shop/web-2", "shop/web-2"),
            ("bücher.example", "bücher.example"),
            ("a\u{1b}[31mred", "a\\x1b[31mred"),
            ("line\r\nfeed\t", "line\\x0d\\x0afeed\\x09"),
            ("\u{7f}\u{9b}2J", "\\x7f\\x9b2J"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("\u{2066}\u{e0041}\u{fe0f}", "\\u{2066}\\u{e0041}\\u{fe0f}"),
            ("\u{10ffff}", "\\u{10ffff}"),
        ] {
            assert_eq!(escape(text), safe);
        }
        assert!(matches!(escape("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(INVISIBLE.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(INVISIBLE.iter().all(|&(first, last)| first <= last));
    }

    proptest! {
        #[test]
        fn nothing_invisible_is_left(text in any::<String>()) {
            let safe = escape(&text);
            prop_assert!(!safe.contains(is_invisible));
            prop_assert!(!safe.contains(char::is_control));
            prop_assert_eq!(escape(&safe), safe.clone());
        }

        #[test]
        fn sizes_and_durations_never_panic(number in any::<u64>(), ms in any::<f64>()) {
            prop_assert!(bytes(number).ends_with('B'));
            prop_assert!(!duration_us(number).is_empty());
            prop_assert!(!duration_ms(ms).is_empty());
            prop_assert_eq!(count(number).replace(',', ""), number.to_string());
            prop_assert_eq!(super::number(number), number.to_string());
            prop_assert_eq!(super::number(number % 1_100), (number % 1_100).to_string());
        }
    }
}
