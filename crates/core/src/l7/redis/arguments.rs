//! The arguments of one command, as far as anybody looks at them.

use smol_str::SmolStr;

/// Arguments beyond these are only counted.
pub(super) const ARGUMENTS_MAX: usize = 32;
/// Longer ones are values, or keys that nobody would read.
const ARGUMENT_BYTES_MAX: u64 = 512;
/// No name of a command, or of a part of it, is longer.
pub(super) const WORD_BYTES_MAX: usize = 64;

/// In one piece of memory, which is used again for the next command.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    bytes: Vec<u8>,
    /// Where they are in `bytes`; `None`: not kept.
    places: Vec<Option<(usize, usize)>>,
    total: u64,
    /// They came as a line of text.
    pub(super) inline: bool,
}

impl Arguments {
    /// For a command of so many arguments, its name included.
    pub(super) fn begin(&mut self, total: u64, inline: bool) {
        self.bytes.clear();
        self.places.clear();
        self.total = total;
        self.inline = inline;
    }

    /// Whether the next one is kept, if it is of this length.
    pub(super) fn wants(&self, length: u64) -> bool {
        self.places.len() < ARGUMENTS_MAX && length <= ARGUMENT_BYTES_MAX
    }

    /// The next one; `None`: what it says is not kept.
    pub(super) fn push(&mut self, argument: Option<&[u8]>) {
        if self.places.len() >= ARGUMENTS_MAX {
            return;
        }
        let argument = argument.filter(|argument| self.wants(argument.len() as u64));
        self.places.push(argument.map(|argument| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(argument);
            (start, self.bytes.len())
        }));
    }

    /// How many there are, seen or not.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many can be asked for.
    pub(super) fn seen(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = (*self.places.get(at)?)?;
        self.bytes.get(start..end)
    }

    /// In capital letters, if it is so short that it may be a word of a command.
    pub(super) fn upper(&self, at: usize) -> Option<SmolStr> {
        let word = self.get(at)?;
        let mut capitals = [0; WORD_BYTES_MAX];
        let capitals = capitals.get_mut(..word.len())?;
        capitals.copy_from_slice(word);
        capitals.make_ascii_uppercase();
        std::str::from_utf8(capitals).ok().map(SmolStr::new)
    }

    pub(super) fn number(&self, at: usize) -> Option<u64> {
        std::str::from_utf8(self.get(at)?).ok()?.parse().ok()
    }

    /// Whether it is this word, in whatever letters.
    pub(super) fn is_word(&self, at: usize, word: &str) -> bool {
        self.get(at).is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.places.capacity() * size_of::<Option<(usize, usize)>>()
    }
}

/// Splits a line as the server does: at white space, with quotes and escapes.
/// Quotes that do not end hide what follows them.
pub(super) fn split(line: &[u8], arguments: &mut Arguments) {
    arguments.begin(0, true);
    let mut total = 0;
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let (word, used) = word(rest);
        arguments.push(word.as_deref());
        total += 1;
        rest = rest.get(used..).unwrap_or_default();
    }
    arguments.total = total;
}

/// The first word, and how many bytes it takes.
fn word(line: &[u8]) -> (Option<Vec<u8>>, usize) {
    let mut word = Vec::new();
    let mut quote = None;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        at += 1;
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, byte) if byte.is_ascii_whitespace() => return (Some(word), at),
            (Some(open), byte) if byte == open => quote = None,
            (Some(b'"'), b'\\') => at += unescape(line.get(at..).unwrap_or_default(), &mut word),
            (Some(b'\''), b'\\') if line.get(at) == Some(&b'\'') => {
                word.push(b'\'');
                at += 1;
            }
            (_, byte) => word.push(byte),
        }
    }
    (Some(word).filter(|_| quote.is_none()), at)
}

/// What follows a backslash; gives back how many bytes that took.
fn unescape(rest: &[u8], word: &mut Vec<u8>) -> usize {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match *rest {
        [] => 0,
        [b'x', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
            word.push(hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0));
            3
        }
        [byte, ..] => {
            word.push(match byte {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'a' => 7,
                byte => byte,
            });
            1
        }
    }
}
