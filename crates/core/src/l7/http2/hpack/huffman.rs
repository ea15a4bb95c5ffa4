//! The Huffman code of HPACK (RFC 7541, appendix B).
//!
//! It is canonical: codes of one length follow each other in the order of their
//! symbols, and longer ones come after shorter ones. So the lengths are the code.

/// After the bytes comes the symbol that ends a text, and must not be sent.
const SYMBOLS: usize = 257;
const END: u16 = 256;
const LENGTH_MIN: usize = 5;
const LENGTH_MAX: usize = 30;

/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// What is needed to tell a symbol by the next 32 bits, which are compared with
/// the end of the codes of each length.
struct Codes {
    /// Ordered by their codes.
    symbols: [u16; SYMBOLS],
    /// By length: the first code, filled up to 32 bits with zeros.
    first: [u64; LENGTH_MAX + 1],
    /// By length: what follows the last code, likewise.
    end: [u64; LENGTH_MAX + 1],
    /// By length: where its symbols begin.
    place: [usize; LENGTH_MAX + 1],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        symbols: [0; SYMBOLS],
        first: [0; LENGTH_MAX + 1],
        end: [0; LENGTH_MAX + 1],
        place: [0; LENGTH_MAX + 1],
    };
    let (mut code, mut place, mut length) = (0u64, 0, LENGTH_MIN);
    while length <= LENGTH_MAX {
        codes.first[length] = code;
        codes.place[length] = place;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                codes.symbols[place] = symbol as u16;
                place += 1;
                code += 1 << (32 - length);
            }
            symbol += 1;
        }
        codes.end[length] = code;
        length += 1;
    }
    codes
}

/// The symbol that the next 32 bits begin with, and how long its code is.
fn symbol(bits: u32) -> Option<(u16, usize)> {
    let bits = u64::from(bits);
    let length = (LENGTH_MIN..=LENGTH_MAX).find(|length| bits < CODES.end[*length])?;
    let number = usize::try_from((bits - CODES.first[length]) >> (32 - length)).ok()?;
    CODES.symbols.get(CODES.place[length] + number).map(|symbol| (*symbol, length))
}

/// Adds the text to `into`; `None` if it is not encoded as the rules say.
pub(super) fn decode(bytes: &[u8], into: &mut Vec<u8>) -> Option<()> {
    // The next bits, from the top.
    let (mut bits, mut count) = (0u64, 0usize);
    for byte in bytes {
        bits |= u64::from(*byte) << (56 - count);
        count += 8;
        while let Some((symbol, length)) = symbol((bits >> 32) as u32) {
            if length > count {
                break;
            }
            if symbol == END {
                return None;
            }
            into.push(symbol as u8);
            bits <<= length;
            count -= length;
        }
    }
    // The last byte is filled up with ones.
    (count < 8 && bits == !(u64::MAX >> count)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other way round, to test with.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let same = |symbol: &usize| usize::from(LENGTHS[*symbol]) == length;
            let number = (0..usize::from(*byte)).filter(same).count() as u64;
            let code = (CODES.first[length] >> (32 - length)) + number;
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|eight| u8::from_str_radix(&String::from_utf8_lossy(eight), 2).unwrap())
            .collect()
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for text in all.iter().map(std::slice::from_ref).chain([all.as_slice(), b"", b"www.example.com"]) {
            let mut decoded = Vec::new();
            assert_eq!(decode(&encode(text), &mut decoded), Some(()), "{text:?}");
            assert_eq!(decoded, text);
        }
        assert_eq!(CODES.end[LENGTH_MAX], 1 << 32, "the code is complete");
    }

    #[test]
    fn wrong_endings_are_refused() {
        for (bytes, why) in [
            (&[0xff; 1][..], "eight ones"),
            (&[0xff; 4], "the end symbol"),
            (&[0b0001_1000], "filled up with zeros"),
            (&[0b0001_1110], "filled up with a zero"),
        ] {
            assert_eq!(decode(bytes, &mut Vec::new()), None, "{why}");
        }
    }
}
