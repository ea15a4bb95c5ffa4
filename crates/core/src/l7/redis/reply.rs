//! Reads what the server sends: one reply, or push, after the other.
//!
//! Values may hold values to any depth. They are counted, not built: a counter
//! for each level that only its end tells the end of, one for all others.

use smallvec::SmallVec;

use super::line::{Length, Line, LineSearch, length};
use super::{BULK_BYTES_MAX, LINE_BYTES_MAX};
use crate::l7::{Part, Skipped, Step, Times};
use crate::record::Capture;

/// Levels that only their end tells the end of.
const STREAMS_MAX: usize = 64;
/// Values in an aggregate.
const VALUES_MAX: i64 = u32::MAX as i64;
/// How much is kept of what is looked at: errors, names of channels.
const TEXT_BYTES_MAX: usize = 512;
/// Most lines are no longer: they need no memory of their own.
const TEXT_BYTES_USUAL: usize = 16;
/// [`Replies::left`] of a level whose end is told by a line.
const STREAMED: u64 = u64::MAX;
const LINE_END: usize = 2;

/// Reads replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    open: Option<Reply>,
    /// Values that are still to come at this level.
    left: u64,
    /// The same of the levels around it.
    outer: Vec<u64>,
    /// In what stands before a reply and describes it.
    attribute: bool,
    /// In a text that comes in pieces.
    chunks: bool,
    /// Type of the text that goes by.
    skipping: u8,
    line: LineSearch,
}

/// A reply, as far as it was read.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) part: Part,
    pub(super) capture: Capture,
    /// The byte that tells its type; `None`: not seen yet.
    pub(super) kind: Option<u8>,
    /// It is one of the null values.
    pub(super) null: bool,
    /// Of a line or an error: what it says. Cut after [`TEXT_BYTES_MAX`].
    pub(super) text: SmallVec<[u8; TEXT_BYTES_USUAL]>,
    /// Of one that has values in it, and most have none.
    inside: Option<Box<Inside>>,
}

/// The values in a reply.
#[derive(Debug, Clone, Default)]
struct Inside {
    /// How many values it says it has.
    count: i64,
    /// How many were seen in it.
    values: u64,
    /// The first text in it, if that is all of one word.
    label: Option<Box<[u8]>>,
    /// The first text in it, whatever it is.
    first: Option<Box<[u8]>>,
    /// What a message came through.
    channel: Option<Box<[u8]>>,
    /// How many channels are subscribed.
    subscribed: Option<u64>,
    /// The first error inside of it.
    error: Option<Box<[u8]>>,
}

impl Reply {
    fn new(times: Times) -> Self {
        Self {
            part: Part::new(times, 0),
            capture: Capture::Complete,
            kind: None,
            null: false,
            text: SmallVec::new(),
            inside: None,
        }
    }

    /// The first text in it, if that is all of one word.
    pub(super) fn label(&self) -> Option<&[u8]> {
        self.inside.as_ref()?.label.as_deref()
    }

    /// The first text in it, whatever it is.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.inside.as_ref()?.first.as_deref()
    }

    /// What a message came through.
    pub(super) fn channel(&self) -> Option<&[u8]> {
        self.inside.as_ref()?.channel.as_deref()
    }

    /// How many channels are subscribed.
    pub(super) fn subscribed(&self) -> Option<u64> {
        self.inside.as_ref()?.subscribed
    }

    /// The first error inside of it.
    pub(super) fn inner_error(&self) -> Option<&[u8]> {
        self.inside.as_ref()?.error.as_deref()
    }

    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind, Some(b'-' | b'!'))
    }

    pub(super) fn is_push(&self) -> bool {
        self.kind == Some(b'>')
    }

    /// A type that only version 3 of the protocol has.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.kind, Some(b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~' | b'>'))
    }

    /// Whether the next value's text matters.
    fn wants(&self, size: u64) -> bool {
        let Some(inside) = self.inside.as_ref().filter(|_| size <= TEXT_BYTES_MAX as u64) else {
            return false;
        };
        let last = if inside.label.as_deref() == Some(b"pmessage") { 2 } else { 1 };
        matches!(self.kind, Some(b'*' | b'>'))
            && (inside.values == 0 && inside.count <= 4 || inside.label.is_some() && inside.values <= last)
    }

    /// A value that holds no others; `text` if it is looked at.
    fn value(&mut self, kind: u8, text: Option<&[u8]>) {
        let kept = text.map(|text| text.get(..TEXT_BYTES_MAX).unwrap_or(text));
        if let Some(inside) = &mut self.inside {
            inside.value(kind, kept);
        } else if self.kind.is_none() {
            self.kind = Some(kind);
            if matches!(kind, b'+' | b'-' | b'!') {
                self.text = kept.unwrap_or_default().into();
            }
        }
    }
}

impl Inside {
    fn value(&mut self, kind: u8, kept: Option<&[u8]>) {
        if matches!(kind, b'-' | b'!') && self.error.is_none() {
            self.error = Some(kept.unwrap_or_default().into());
        }
        let text = kept.filter(|_| matches!(kind, b'$' | b'+' | b':'));
        if self.values == 0 {
            self.first = text.map(Box::from);
        }
        match (self.values, text) {
            (0, Some(text)) if kind != b':' && is_label(text) => self.label = Some(text.into()),
            (1 | 2, Some(text)) if self.label.is_some() && kind == b':' => {
                self.subscribed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            }
            (1, Some(text)) if self.label.is_some() => self.channel = Some(text.into()),
            // After the pattern, the channel.
            (2, Some(text)) if self.label.as_deref() == Some(b"pmessage") => {
                self.channel = Some(text.into());
            }
            _ => {}
        }
        self.values = self.values.saturating_add(1);
    }
}

fn is_label(text: &[u8]) -> bool {
    (3..=32).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

/// What came of reading.
pub(super) enum Read {
    /// Go on as it says.
    Step(Step),
    /// A reply is whole, after that many bytes: see [`Replies::take`].
    Whole(usize),
}

/// What one value does.
enum Value {
    /// It takes that many bytes.
    Is(usize),
    Step(Step),
}

impl Replies {
    pub(super) fn read(&mut self, bytes: &[u8], times: Times) -> Read {
        if self.open.is_none() {
            self.open = Some(Reply::new(times));
            self.left = 1;
        }
        let mut at = 0;
        let step = loop {
            if self.is_whole() {
                self.grow(times, at);
                return Read::Whole(at);
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(kind) = rest.first() else { break Step::Consumed(at) };
            match self.read_value(*kind, rest) {
                Value::Is(used) => at += used,
                Value::Step(step) => break step,
            }
        };
        if at == 0 {
            return Read::Step(step);
        }
        self.grow(times, at);
        // Whatever it was: it is the same when it is asked about the rest alone.
        Read::Step(Step::Consumed(at))
    }

    /// What is read now, for whom the end need not have come.
    pub(super) fn open(&self) -> Option<&Reply> {
        self.open.as_ref()
    }

    fn grow(&mut self, times: Times, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.part.grow(times.last_ns, bytes as u64);
        }
    }

    fn read_value(&mut self, kind: u8, rest: &[u8]) -> Value {
        if self.chunks && kind != b';' {
            return Value::Step(Step::Desync);
        }
        match kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => self.read_line(kind, rest),
            b'.' if self.left == STREAMED => match rest {
                [_, b'\r', b'\n', ..] => {
                    self.left = self.outer.pop().unwrap_or(0);
                    self.leave_levels();
                    Value::Is(3)
                }
                [_] | [_, b'\r'] => Value::Step(Step::NeedMore(3)),
                _ => Value::Step(Step::Desync),
            },
            _ => match length(rest) {
                Length::More => Value::Step(Step::NeedMore(rest.len() + 1)),
                Length::No => Value::Step(Step::Desync),
                Length::Streamed(used) => self.begin_streamed(kind, used),
                Length::Is(number, used) => self.read_counted(kind, number, used, rest),
            },
        }
    }

    fn read_line(&mut self, kind: u8, rest: &[u8]) -> Value {
        match self.line.find(rest, LINE_BYTES_MAX) {
            Line::More => Value::Step(Step::NeedMore(rest.len() + 1)),
            Line::Is(line, used) if used == line.len() + LINE_END && fits(kind, line) => {
                self.value(kind, line.get(1..));
                if kind == b'_' {
                    self.note_null();
                }
                Value::Is(used)
            }
            Line::Is(..) | Line::TooLong => Value::Step(Step::Desync),
        }
    }

    fn read_counted(&mut self, kind: u8, number: i64, used: usize, rest: &[u8]) -> Value {
        match (kind, number) {
            (b'$' | b'*', -1) => {
                self.value(kind, None);
                self.note_null();
                Value::Is(used)
            }
            (b'$' | b'=' | b'!', 0..=BULK_BYTES_MAX) => {
                self.read_text(kind, number.unsigned_abs(), used, rest)
            }
            (b';', 0) if self.chunks => {
                self.chunks = false;
                self.value(b'$', None);
                Value::Is(used)
            }
            (b';', 1..=BULK_BYTES_MAX) if self.chunks => {
                let whole = (used as u64) + number.unsigned_abs() + LINE_END as u64;
                match usize::try_from(whole) {
                    Ok(whole) if whole <= rest.len() => Value::Is(whole),
                    _ => Value::Step(Step::Skip(whole)),
                }
            }
            (b'*' | b'~' | b'>', 0..=VALUES_MAX) => self.begin(kind, number.unsigned_abs(), used),
            (b'%' | b'|', 0..=VALUES_MAX) => self.begin(kind, number.unsigned_abs() * 2, used),
            _ => Value::Step(Step::Desync),
        }
    }

    fn read_text(&mut self, kind: u8, size: u64, used: usize, rest: &[u8]) -> Value {
        let wanted = !self.attribute
            && self
                .open
                .as_ref()
                .is_some_and(|open| open.wants(size) || kind == b'!' && size < LINE_BYTES_MAX as u64 / 2);
        let whole = used as u64 + size + LINE_END as u64;
        let Some(value) = usize::try_from(whole).ok().and_then(|whole| rest.get(used..whole)) else {
            self.skipping = kind;
            let needed = usize::try_from(whole).unwrap_or(usize::MAX);
            return Value::Step(if wanted { Step::NeedMore(needed) } else { Step::Skip(whole) });
        };
        let Some(value) = value.strip_suffix(b"\r\n") else { return Value::Step(Step::Desync) };
        self.value(kind, Some(value).filter(|_| wanted));
        Value::Is(used + value.len() + LINE_END)
    }

    /// A value that holds no others is over.
    fn value(&mut self, kind: u8, text: Option<&[u8]>) {
        if let Some(open) = &mut self.open
            && !self.attribute
        {
            open.value(kind, text);
        }
        self.count_value();
        self.leave_levels();
    }

    fn note_null(&mut self) {
        if let Some(open) = &mut self.open
            && !self.attribute
            && open.inside.is_none()
        {
            open.null = true;
        }
    }

    fn count_value(&mut self) {
        if self.left != STREAMED {
            self.left = self.left.saturating_sub(1);
        }
    }

    fn begin(&mut self, kind: u8, values: u64, used: usize) -> Value {
        if kind == b'|' {
            // Not a value itself.
            if self.open.as_ref().is_some_and(|open| open.kind.is_none()) && !self.attribute {
                self.attribute = true;
                self.left = values;
                self.leave_levels();
                return Value::Is(used);
            }
        } else {
            self.see_aggregate(kind, values);
            self.count_value();
        }
        if self.left == STREAMED {
            if self.outer.len() >= STREAMS_MAX {
                return Value::Step(Step::Desync);
            }
            self.outer.push(self.left);
            self.left = values;
        } else {
            self.left = self.left.saturating_add(values).min(STREAMED - 1);
        }
        self.leave_levels();
        Value::Is(used)
    }

    fn begin_streamed(&mut self, kind: u8, used: usize) -> Value {
        match kind {
            b'$' => self.chunks = true,
            b'*' | b'~' | b'%' | b'>' if self.outer.len() < STREAMS_MAX => {
                self.see_aggregate(kind, STREAMED);
                self.count_value();
                self.outer.push(self.left);
                self.left = STREAMED;
            }
            _ => return Value::Step(Step::Desync),
        }
        Value::Is(used)
    }

    fn see_aggregate(&mut self, kind: u8, values: u64) {
        let Some(open) = &mut self.open else { return };
        if self.attribute {
            return;
        }
        if let Some(inside) = &mut open.inside {
            inside.values = inside.values.saturating_add(1);
        } else if open.kind.is_none() {
            open.kind = Some(kind);
            let count = i64::try_from(values).unwrap_or(i64::MAX);
            open.inside = Some(Box::new(Inside { count, ..Inside::default() }));
        }
    }

    /// Goes back out of the levels that are over.
    fn leave_levels(&mut self) {
        while self.left == 0
            && let Some(outer) = self.outer.pop()
        {
            self.left = outer;
        }
        if self.left == 0 && self.attribute {
            self.attribute = false;
            self.left = 1;
        }
    }

    fn is_whole(&self) -> bool {
        self.left == 0 && !self.chunks
    }

    /// A text went by; gives back whether the reply is whole now.
    pub(super) fn skipped(&mut self, skipped: Skipped) -> bool {
        let Some(open) = &mut self.open else { return false };
        open.part.grow(skipped.time_ns, skipped.bytes);
        open.capture = open.capture.max(skipped.gap.into());
        if skipped.cut_off {
            return false;
        }
        if !self.chunks {
            self.value(self.skipping, None);
        }
        self.is_whole()
    }

    /// The reply that was being read, whole or not.
    pub(super) fn take(&mut self) -> Option<Reply> {
        self.line.reset();
        self.outer.clear();
        self.left = 0;
        self.attribute = false;
        self.chunks = false;
        self.open.take()
    }
}

/// Whether a line is what its type says.
fn fits(kind: u8, line: &[u8]) -> bool {
    let text = line.get(1..).unwrap_or_default();
    match kind {
        b'_' => text.is_empty(),
        b'#' => matches!(text, b"t" | b"f"),
        b':' | b'(' => {
            let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        b',' => {
            !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        }
        _ => !text.contains(&b'\r'),
    }
}
