//! What is asked and answered once a connection is set up.

mod answers;
mod group;
mod tell;

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::statement::{Names, Statement};
use super::wire::{self, Message};
use crate::l7::statement::Speaker;
use crate::l7::{Context, Fifo, Gap, Part, Trust};
use crate::record::Capture;
use crate::reveal::{Class, Reveal};
use crate::sql::Family;
use group::{Entry, Group, Work};

/// Groups without an answer.
const GROUPS_MAX: usize = 256;
/// Steps without an answer, in all groups.
const ENTRIES_MAX: usize = 4_096;
/// SQL in requests without an answer.
const TEXT_BYTES_MAX: usize = 512 * 1024;

/// What becomes of the client's steps up to its next `Sync`.
#[derive(PartialEq, Eq)]
enum Open {
    /// The next step begins a group.
    Nothing,
    /// They join the group that came last.
    Group,
    /// They cannot be paired.
    Unpaired,
}

pub(super) struct Session {
    who: Speaker,
    /// What a backslash in a string means, if that is known.
    escapes: Option<bool>,
    groups: Fifo<Group>,
    open: Open,
    /// Steps of all groups that are not answered.
    entries: usize,
    /// SQL in requests without an answer.
    text_bytes: usize,
    /// Steps since the last execution, which belong to the next one.
    asked: Option<Part>,
    /// Answers to these steps.
    answered: Option<Part>,
    prepared: Names,
    portals: Names,
    /// The server's direction is lost: who knows what it answers now.
    server_lost: bool,
    /// Why pairs are not certain, while they are not.
    doubt: Capture,
    /// The client's bytes were missing before what comes next.
    client_gap: Option<Gap>,
    replicates: bool,
    /// The client's last message was data to be copied.
    copying: bool,
    reveal: Reveal,
}

impl Session {
    pub(super) fn new(late: bool, reveal: Reveal) -> Self {
        Self {
            who: Speaker { late, ..Speaker::default() },
            escapes: None,
            groups: Fifo::new(GROUPS_MAX, late),
            open: Open::Nothing,
            entries: 0,
            text_bytes: 0,
            asked: None,
            answered: None,
            prepared: Names::default(),
            portals: Names::default(),
            server_lost: late,
            doubt: if late { Capture::Midstream } else { Capture::Complete },
            client_gap: None,
            replicates: false,
            copying: false,
            reveal,
        }
    }

    /// Whether the connection has become a stream of changes.
    pub(super) fn replicates(&self) -> bool {
        self.replicates
    }

    pub(super) fn server_found(&mut self) {
        self.server_lost = false;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.prepared.memory_bytes()
            + self.portals.memory_bytes()
            + self.text_bytes
            + self.groups.len() * size_of::<Group>()
            + self.entries * size_of::<Entry>()
    }

    pub(super) fn startup(&mut self, cx: &mut Context<'_>, parameters: &[u8], part: Part) {
        let mut rest = parameters;
        while !rest.is_empty() {
            let (name, after) = wire::text(rest);
            let (value, after) = wire::text(after);
            rest = after;
            let value = || Some(String::from_utf8_lossy(value).into());
            match name {
                b"user" => self.who.user = value(),
                b"database" => self.who.database = value(),
                _ => {}
            }
        }
        self.who.database = self.who.database.take().or_else(|| self.who.user.clone());
        let text = self.who.database.clone().unwrap_or_default();
        let statement = Statement { operation: "STARTUP".into(), text, ..Statement::default() };
        self.ask_whole(cx, statement, part, None);
    }

    pub(super) fn client_says(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        let Message { kind, body, cut, part, gap } = *message;
        let copies = matches!(kind, b'd' | b'c' | b'f');
        let begins_to_copy = copies && !std::mem::replace(&mut self.copying, copies);
        if !copies && !matches!(kind, b'p' | b'X' | b'S' | b'H') {
            self.asked = Some(match self.asked.take() {
                Some(mut asked) => {
                    asked.grow(part.last_ns, part.bytes);
                    asked
                }
                None => part,
            });
        }
        match kind {
            b'Q' => {
                self.prepared.remove(b"");
                self.portals.remove(b"");
                let statement = self.sql(wire::text(body).0, cut);
                self.ask_whole(cx, statement, part, gap);
            }
            b'F' => {
                let text = match body {
                    [a, b, c, d] => format_smolstr!("oid {}", u32::from_be_bytes([*a, *b, *c, *d])),
                    _ => SmolStr::default(),
                };
                let operation = "FUNCTION CALL".into();
                let statement = Statement { operation, text, ..Statement::default() };
                self.ask_whole(cx, statement, part, gap);
            }
            b'P' => {
                let (name, rest) = wire::text(body);
                let statement = Arc::new(self.sql(wire::text(rest).0, cut));
                self.hold_text(cx, &statement);
                self.prepared.insert(name, &statement);
                self.step(cx, part, Entry::Parse(Work::new(statement, part, gap)));
            }
            b'B' => {
                let (portal, rest) = wire::text(body);
                let (name, rest) = wire::text(rest);
                let mut statement = self.prepared.get(name);
                if self.reveal.has(Class::Parameters) && statement.statements > 0 && !statement.is_secret {
                    statement = Arc::new(statement.with_parameters(wire::bound(rest)));
                    self.hold_text(cx, &statement);
                }
                self.portals.insert(portal, &statement);
                self.step(cx, part, Entry::Bind(Work::new(statement, part, gap)));
            }
            b'D' => {
                let statement = match body {
                    [b'S', name @ ..] => self.prepared.get(wire::text(name).0),
                    [_, name @ ..] => self.portals.get(wire::text(name).0),
                    [] => Arc::default(),
                };
                self.step(cx, part, Entry::Describe(Work::new(statement, part, gap)));
            }
            b'C' => {
                match body {
                    [b'S', name @ ..] => self.prepared.remove(wire::text(name).0),
                    [b'P', name @ ..] => self.portals.remove(wire::text(name).0),
                    _ => {}
                }
                self.step(cx, part, Entry::Close);
            }
            b'E' => {
                let statement = self.portals.get(wire::text(body).0);
                let request = self.asked.take().unwrap_or(part);
                self.step(cx, part, Entry::Execute(Work::new(statement, request, gap)));
            }
            b'S' => self.sync(cx, part),
            b'd' | b'c' | b'f' if begins_to_copy && self.entries < ENTRIES_MAX => self.copy(),
            _ => {}
        }
    }

    fn sql(&self, sql: &[u8], cut: bool) -> Statement {
        Statement::sql(sql, cut, Family::PostgreSql, self.escapes, self.reveal)
    }

    /// A request that is answered up to `ReadyForQuery`.
    fn ask_whole(&mut self, cx: &mut Context<'_>, statement: Statement, part: Part, gap: Option<Gap>) {
        self.asked = None;
        self.hold_text(cx, &statement);
        let mut work = Work::new(Arc::new(statement), part, gap);
        work.note(self.client_gap.take());
        let open = std::mem::replace(&mut self.open, Open::Nothing);
        let group = if open == Open::Group { self.groups.back_mut() } else { None };
        match group {
            // After steps without a `Sync`: one `ReadyForQuery` is for all, and
            // after an error it is passed over like them.
            Some(group) if group.failed => {
                self.open = Open::Group;
                self.not_executed(cx, work);
            }
            Some(group) => {
                work.capture = work.capture.max(group.doubt);
                group.sync = Some(part);
                group.is_whole = true;
                group.entries.push_back(Entry::Whole(work));
                self.entries += 1;
            }
            None if open == Open::Unpaired => self.emit(cx, work, None),
            None => {
                self.ask(cx, Group::whole(work), part);
            }
        }
    }

    /// Limits what is kept of requests that have no answer.
    fn hold_text(&mut self, cx: &mut Context<'_>, statement: &Statement) {
        let parameters: usize = statement.parameters.iter().map(String::len).sum();
        self.text_bytes += statement.text.len() + parameters;
        if self.text_bytes > TEXT_BYTES_MAX {
            self.mistrust(cx);
        }
    }

    /// Asks, and tells whether the answer can be paired.
    fn ask(&mut self, cx: &mut Context<'_>, group: Group, part: Part) -> bool {
        let entries = group.entries.len();
        let refused = if self.server_lost {
            // Its answer may be the first that is seen again.
            self.groups.lose_requests(false);
            Some(group)
        } else {
            match self.groups.ask(group, part.times()) {
                Err(group) => Some(group),
                Ok(Trust::Certain) => {
                    self.doubt = Capture::Complete;
                    None
                }
                Ok(trust @ Trust::Likely) => {
                    if let Some(group) = self.groups.back_mut() {
                        group.doubt(trust.mark(self.doubt));
                    }
                    None
                }
            }
        };
        match refused {
            Some(group) => {
                self.unpaired(cx, group, None);
                false
            }
            None => {
                self.entries += entries;
                true
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, part: Part, mut entry: Entry) {
        if let Some(work) = entry.work_mut() {
            work.note(self.client_gap.take());
        }
        if self.entries >= ENTRIES_MAX {
            self.mistrust(cx);
            self.open = Open::Unpaired;
        }
        if self.open == Open::Nothing {
            let paired = self.ask(cx, Group::default(), part);
            self.open = if paired { Open::Group } else { Open::Unpaired };
        }
        let group = if self.open == Open::Group { self.groups.back_mut() } else { None };
        match (group, entry) {
            // The server passes over it.
            (Some(Group { failed: true, .. }), Entry::Execute(work)) => self.not_executed(cx, work),
            (Some(Group { failed: true, .. }), _) => {}
            (Some(group), mut entry) => {
                entry.doubt(group.doubt);
                group.entries.push_back(entry);
                self.entries += 1;
            }
            (None, Entry::Execute(work)) => self.emit(cx, work, None),
            (None, _) => {}
        }
    }

    /// Data for a `COPY`, which the server has asked for: in the last group.
    fn copy(&mut self) {
        if self.open == Open::Unpaired {
            return;
        }
        let Some(group) = self.groups.back_mut() else { return };
        // While it copies it ignores a `Sync`, and so the one that came with
        // the execution: another one follows the data.
        if !group.is_whole {
            group.sync = None;
            self.open = Open::Group;
        }
        group.entries.push_back(Entry::CopyData);
        self.entries += 1;
    }

    fn sync(&mut self, cx: &mut Context<'_>, part: Part) {
        self.asked = None;
        if self.open == Open::Nothing {
            self.ask(cx, Group { sync: Some(part), ..Group::default() }, part);
        } else if self.open == Open::Group
            && let Some(group) = self.groups.back_mut()
        {
            group.sync = Some(part);
        }
        self.open = Open::Nothing;
    }

    /// What was counted on does not hold: begin to count anew.
    fn mistrust(&mut self, cx: &mut Context<'_>) {
        self.doubted(None);
        self.groups.lose_requests(false);
        self.lose_groups(cx, None);
    }

    /// From here on it is not certain what belongs together.
    fn doubted(&mut self, gap: Option<Gap>) {
        if gap.is_some() || self.doubt == Capture::Complete {
            self.doubt = self.doubt.max(gap.map_or(Capture::Truncated, Capture::from));
        }
    }

    fn lose_groups(&mut self, cx: &mut Context<'_>, gap: Option<Gap>) {
        for group in self.groups.lose_answers() {
            self.unpaired_entries(cx, group, gap);
        }
        self.answered = None;
        self.text_bytes = 0;
        if self.open == Open::Group {
            self.open = Open::Unpaired;
        }
    }

    pub(super) fn client_lost(&mut self, gap: Option<Gap>) {
        // A statement may have got another text.
        self.prepared.clear();
        self.portals.clear();
        self.groups.lose_requests(self.open == Open::Group);
        if self.open == Open::Group
            && let Some(group) = self.groups.back_mut()
        {
            // Its end is lost: it is over with its `ReadyForQuery`.
            // An error in it may be that of a step that was not seen.
            group.sync = Some(Part::default());
            group.failed = true;
        }
        self.open = Open::Nothing;
        self.asked = None;
        self.copying = false;
        self.client_gap = gap;
        self.doubted(gap);
    }

    pub(super) fn server_lost(&mut self, cx: &mut Context<'_>, gap: Option<Gap>) {
        self.server_lost = true;
        self.doubted(gap);
        self.escapes = None;
        self.lose_groups(cx, gap);
    }

    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        for group in self.groups.drain() {
            self.unpaired_entries(cx, group, None);
        }
    }
}
