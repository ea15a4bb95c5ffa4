//! Reads what the client sends: one command after the other.

use super::arguments::{self, Arguments};
use super::command::{self, Command};
use super::line::{Length, Line, LineSearch, length};
use super::{BULK_BYTES_MAX, LINE_BYTES_MAX, is_text};
use crate::l7::{Part, Skipped, Step, Times};
use crate::record::Capture;
use crate::reveal::Reveal;

/// More arguments than a server takes.
const ARGUMENTS_MAX: i64 = i32::MAX as i64;
const LINE_END: &[u8] = b"\r\n";

/// Reads commands.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: Option<Open>,
    arguments: Arguments,
    line: LineSearch,
    /// To write texts in, again and again.
    scratch: String,
}

/// A command of which something was read.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) part: Part,
    pub(super) capture: Capture,
    /// Arguments that are still to come.
    left: u64,
}

/// What came of reading.
pub(super) enum Read {
    /// Go on as it says.
    Step(Step),
    /// A command is whole, after that many bytes: see [`Requests::take`].
    Whole(usize),
}

impl Requests {
    /// `may_be_text`: a line without a length in front can be a command.
    pub(super) fn read(&mut self, bytes: &[u8], times: Times, may_be_text: bool) -> Read {
        let begun = match &mut self.open {
            Some(_) => 0,
            None if bytes.first() == Some(&b'*') => match length(bytes) {
                Length::Is(count @ 1..=ARGUMENTS_MAX, used) => {
                    self.begin(count.unsigned_abs(), false, times);
                    used
                }
                // The server does not answer to nothing.
                Length::Is(..1, used) => return Read::Step(Step::Consumed(used)),
                Length::More => return Read::Step(Step::NeedMore(bytes.len() + 1)),
                _ => return Read::Step(Step::Desync),
            },
            None if may_be_text => return self.read_text(bytes, times),
            None => return Read::Step(Step::Desync),
        };
        self.read_arguments(bytes, begun, times)
    }

    fn begin(&mut self, total: u64, inline: bool, times: Times) {
        self.arguments.begin(total, inline);
        self.open = Some(Open { part: Part::new(times, 0), capture: Capture::Complete, left: total });
    }

    fn read_text(&mut self, bytes: &[u8], times: Times) -> Read {
        if !bytes.first().is_some_and(|first| is_text(*first)) {
            return Read::Step(Step::Desync);
        }
        match self.line.find(bytes, LINE_BYTES_MAX) {
            Line::More => Read::Step(Step::NeedMore(bytes.len() + 1)),
            Line::Is(line, used) if line.iter().all(|byte| is_text(*byte)) => {
                if line.trim_ascii().is_empty() {
                    return Read::Step(Step::Consumed(used));
                }
                self.begin(0, true, times);
                arguments::split(line, &mut self.arguments);
                self.grow(times, used);
                Read::Whole(used)
            }
            Line::Is(..) | Line::TooLong => Read::Step(Step::Desync),
        }
    }

    fn read_arguments(&mut self, bytes: &[u8], begun: usize, times: Times) -> Read {
        let Self { open, arguments, .. } = self;
        let Some(open) = open else { return Read::Step(Step::Desync) };
        let mut at = begun;
        let step = loop {
            if open.left == 0 {
                self.grow(times, at);
                return Read::Whole(at);
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (size, head) = match length(rest) {
                _ if rest.is_empty() => break Step::Consumed(at),
                Length::Is(size @ 0..=BULK_BYTES_MAX, head) if rest.first() == Some(&b'$') => {
                    (size.unsigned_abs(), head)
                }
                Length::More if rest.first() == Some(&b'$') => break Step::NeedMore(rest.len() + 1),
                _ => break Step::Desync,
            };
            let whole = head as u64 + size + LINE_END.len() as u64;
            if whole > rest.len() as u64 {
                if !arguments.wants(size) {
                    break Step::Skip(whole);
                }
                // Not more than a head and what is wanted.
                break Step::NeedMore(usize::try_from(whole).unwrap_or(usize::MAX));
            }
            let whole = usize::try_from(whole).unwrap_or(usize::MAX);
            let Some(argument) = rest.get(head..whole).and_then(|rest| rest.strip_suffix(LINE_END)) else {
                break Step::Desync;
            };
            arguments.push(Some(argument));
            open.left -= 1;
            at += whole;
        };
        if at == 0 {
            return Read::Step(step);
        }
        self.grow(times, at);
        // Whatever it was: it is the same when it is asked about the rest alone.
        Read::Step(Step::Consumed(at))
    }

    fn grow(&mut self, times: Times, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.part.grow(times.last_ns, bytes as u64);
        }
    }

    /// An argument went by; gives back whether the command is whole now.
    pub(super) fn skipped(&mut self, skipped: Skipped) -> bool {
        let Some(open) = &mut self.open else { return false };
        open.part.grow(skipped.time_ns, skipped.bytes);
        open.capture = open.capture.max(skipped.gap.into());
        if skipped.cut_off {
            return false;
        }
        self.arguments.push(None);
        open.left = open.left.saturating_sub(1);
        open.left == 0
    }

    /// The command that was read last, redacted.
    pub(super) fn describe(&mut self, database: Option<u64>, reveal: Reveal) -> Command {
        command::describe(&self.arguments, database, reveal, &mut self.scratch)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.arguments.memory_bytes() + self.scratch.capacity()
    }

    /// The command that was being read, whole or not.
    pub(super) fn take(&mut self) -> Option<Open> {
        self.line.reset();
        self.open.take()
    }
}
