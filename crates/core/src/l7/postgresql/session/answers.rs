//! What the server says, and to which step it is the answer.

use std::sync::Arc;

use super::group::{Entry, Work};
use super::{Message, Session, Statement, wire};
use crate::l7::{Context, Direction, Part};

impl Session {
    pub(in crate::l7::postgresql) fn server_says(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        let Message { kind, body, gap, .. } = *message;
        if kind == b'S' {
            self.parameter(body);
        }
        self.count(message);
        if kind == b'Z' {
            return self.ready(cx, message.part.last_ns);
        }
        let Some(group) = self.groups.front_mut() else { return self.orphan(cx, message) };
        self.entries = self.entries.saturating_sub(group.skip_copied());
        let Some(front) = group.entries.front_mut() else {
            // After the last step only an error is left to come: of the end of
            // the transaction, or of the connection.
            return self.orphan(cx, message);
        };
        if let Some(work) = front.work_mut() {
            work.note(gap);
        }
        match (kind, front) {
            (b'N' | b'A' | b'S' | b'R' | b'K' | b'v', _) => {}
            (b'1', Entry::Parse(_)) | (b'2', Entry::Bind(_)) | (b'3', Entry::Close) => self.pop(),
            (b't', Entry::Describe(_)) => {}
            (b'T' | b'n', Entry::Describe(_)) => self.pop(),
            (b'T', Entry::Whole(work)) => work.returns_rows = true,
            (wire::ROW, Entry::Whole(work) | Entry::Execute(work)) => {
                work.returns_rows = true;
                work.rows += 1;
            }
            (b'C', Entry::Whole(work)) => work.tag(wire::text(body).0),
            (b'I' | b'V', Entry::Whole(_)) => {}
            (b'G' | b'H' | b'd' | b'c', Entry::Whole(_) | Entry::Execute(_)) => {}
            (b'W', Entry::Whole(work)) => {
                work.outcome = Some(Ok("OK"));
                self.replicates = true;
            }
            (b'C' | b'I' | b's', Entry::Execute(work)) => {
                work.tag(wire::text(body).0);
                work.outcome = Some(Ok(if kind == b's' { "SUSPENDED" } else { "OK" }));
                self.executed(cx);
            }
            (b'E', Entry::Whole(work)) => work.outcome = Some(Err(Box::new(wire::error(body)))),
            (b'E', _) => self.failed(cx, wire::error(body)),
            // Not the answer to what seemed to be next.
            _ => self.mistrust(cx),
        }
    }

    /// After a row, takes those that follow it and lie whole at the beginning of these bytes: answers may be made
    /// of thousands, and of each only its length matters. How many bytes they take.
    pub(in crate::l7::postgresql) fn take_rows(&mut self, bytes: &[u8], time_ns: u64) -> usize {
        let Some(front) = self.groups.front_mut().and_then(|group| group.entries.front_mut()) else {
            return 0;
        };
        let (rows, response) = match front {
            Entry::Whole(work) => (&mut work.rows, &mut work.response),
            Entry::Execute(work) => (&mut work.rows, &mut self.answered),
            _ => return 0,
        };
        let Some(response) = response else { return 0 };
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..)
            && let Some(Some((wire::ROW, length))) = wire::header(Direction::ToClient, rest)
            && rest.len() >= length
        {
            taken += length;
            *rows += 1;
        }
        if taken > 0 {
            response.grow(time_ns, taken as u64);
        }
        taken
    }

    /// The bytes of an answer. What the server says at any time is part of one
    /// only when it has begun.
    fn count(&mut self, message: &Message<'_>) {
        let part = message.part;
        let response = match self.groups.front_mut().and_then(|group| group.entries.front_mut()) {
            Some(Entry::Whole(work)) => &mut work.response,
            _ => &mut self.answered,
        };
        match response {
            Some(response) => response.grow(part.last_ns, part.bytes),
            None if matches!(message.kind, b'N' | b'A' | b'S') => {}
            None => *response = Some(part),
        }
    }

    fn parameter(&mut self, body: &[u8]) {
        let (name, rest) = wire::text(body);
        if name == b"standard_conforming_strings" {
            self.escapes = Some(wire::text(rest).0 == b"off");
        }
    }

    fn pop(&mut self) {
        if let Some(group) = self.groups.front_mut()
            && group.entries.pop_front().is_some()
        {
            self.entries = self.entries.saturating_sub(1);
        }
    }

    /// The execution in front has its answer.
    fn executed(&mut self, cx: &mut Context<'_>) {
        let response = self.answered.take();
        let entry = self.groups.front_mut().and_then(|group| group.entries.pop_front());
        if let Some(Entry::Execute(work)) = entry {
            self.entries = self.entries.saturating_sub(1);
            self.emit(cx, work, response);
        }
    }

    /// The step in front has failed: the server passes over the others up to
    /// the next `Sync`.
    fn failed(&mut self, cx: &mut Context<'_>, error: wire::Error) {
        let response = self.answered.take();
        let Some(group) = self.groups.front_mut() else { return };
        group.failed = true;
        let is_whole = group.is_whole;
        let entries = std::mem::take(&mut group.entries);
        self.entries = self.entries.saturating_sub(entries.len());
        let mut entries = entries.into_iter();
        let Some(failed) = entries.next() else { return };
        let mut later: Vec<Work> = entries.filter_map(Entry::execution).collect();
        let work = match failed {
            Entry::Execute(work) => work,
            // The execution that it was a preparation for, if there is one.
            Entry::Parse(work) | Entry::Bind(work) | Entry::Describe(work) => {
                let own = later.iter().position(|one| Statement::is_same(&one.statement, &work.statement));
                own.map_or(work, |place| later.remove(place))
            }
            Entry::Close | Entry::CopyData | Entry::Whole(_) => {
                Work::new(Arc::default(), Part::default(), None).without_request()
            }
        };
        self.emit(cx, Work { outcome: Some(Err(Box::new(error))), ..work }, response);
        for work in later {
            self.not_executed(cx, work);
        }
        if is_whole {
            // It is passed over too, and a `Sync` that was taken for the
            // beginning of a group ends this one.
            self.mistrust(cx);
        }
    }

    /// `ReadyForQuery`: the group in front has all its answers.
    fn ready(&mut self, cx: &mut Context<'_>, time_ns: u64) {
        self.answered = None;
        let Some(mut group) = self.groups.answer(time_ns) else { return };
        let ended = group.sync.is_some();
        if self.groups.is_empty() {
            self.text_bytes = 0;
        }
        if group.is_whole
            && let Some(Entry::Whole(mut work)) = group.entries.pop_front()
        {
            self.entries = self.entries.saturating_sub(1);
            work.outcome.get_or_insert(Ok("OK"));
            let response = work.response.take();
            self.emit(cx, work, response);
        }
        let complete = group.entries.iter().all(|one| matches!(one, Entry::CopyData));
        self.unpaired_entries(cx, group, None);
        if !ended || !complete {
            self.mistrust(cx);
        }
    }

    /// An answer to something that was not seen, or cannot be told which it is.
    fn orphan(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        let Message { kind, body, gap, .. } = *message;
        if !matches!(kind, b'C' | b'E' | b's' | b'I') {
            return;
        }
        let mut work = Work::new(Arc::default(), Part::default(), gap).without_request();
        if kind == b'E' {
            work.outcome = Some(Err(Box::new(wire::error(body))));
            // The end of a transaction that failed: the answer to `Sync`.
            if let Some(group) = self.groups.front_mut()
                && !std::mem::replace(&mut group.failed, true)
                && let Some(sync) = group.sync
            {
                let operation = "SYNC".into();
                let statement = Arc::new(Statement { operation, ..Statement::default() });
                work = Work { outcome: work.outcome, ..Work::new(statement, sync, gap) };
            }
        } else {
            work.tag(wire::text(body).0);
            work.outcome = Some(Ok(if kind == b's' { "SUSPENDED" } else { "OK" }));
        }
        let response = self.answered.take();
        self.emit(cx, work, response);
    }
}
