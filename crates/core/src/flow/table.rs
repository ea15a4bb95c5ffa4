//! User space's side of the flow table: which flows live, what was reported of
//! them, and when they ended. The counters stay in the kernel and are read when
//! they are wanted.

mod row;
mod totals;

use std::collections::{HashMap, VecDeque};

use crate::endpoint::Identity;
use crate::event::{FlowClosed, FlowOpened};
use crate::flow::timeout::{LINGER_NS, Pressure, idle_ns};
use crate::flow::{ConnectionId, FlowEntry, FlowKey, FlowState};
use crate::record::{FlowEvent, State};
use row::{Row, counted_packets, opening_state, state_of};

pub use totals::Totals;

/// An entry that is older than this and has no row lost its opening event: the
/// event of a younger one is still on its way through the ring.
const EVENT_DELAY_NS: u64 = 1_000_000_000;

/// Where entries are read: the kernel's table, or a test's.
pub trait EntrySource {
    /// Why it cannot be read.
    type Error;

    /// The entry of one flow.
    ///
    /// # Errors
    /// The table cannot be read.
    fn read(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Self::Error>;

    /// Takes one flow out; its final entry.
    ///
    /// # Errors
    /// The table cannot be changed.
    fn remove(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Self::Error>;

    /// Visits all entries.
    ///
    /// # Errors
    /// The table cannot be read.
    fn visit(&mut self, visit: &mut dyn FnMut(FlowKey, FlowEntry)) -> Result<(), Self::Error>;
}

/// Something to tell of a flow.
#[derive(Debug)]
pub struct Report<'a> {
    /// The same for all reports of one connection.
    pub id: ConnectionId,
    /// Why.
    pub event: FlowEvent,
    /// Where the flow stands.
    pub state: State,
    /// When the event happened, CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Which flow.
    pub key: FlowKey,
    /// Its entry; counters of this connection only, not of earlier ones that
    /// used the same key.
    pub entry: FlowEntry,
    /// Who stands at the two ends, by [`Side::index`], as far as an earlier
    /// report found out: a container that is gone keeps its name.
    pub ends: &'a mut [Option<Identity>; 2],
}

/// All flows that live.
#[derive(Default)]
pub struct Table {
    rows: HashMap<FlowKey, Row>,
    /// Closed connections in the order of their ends.
    ending: VecDeque<(u64, FlowKey, u32)>,
    totals: Totals,
    pressure: Pressure,
}

impl Table {
    /// How many flows live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no flow lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether this connection's beginning was told.
    #[must_use]
    pub fn knows(&self, key: &FlowKey, first_ns: u64) -> bool {
        self.rows.get(key).is_some_and(|row| row.first_ns == first_ns)
    }

    /// Sums over the flows that have ended.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// How full the kernel's table was when it was last read.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// When [`Table::end_closed`] has something to do next.
    #[must_use]
    pub fn next_end_ns(&self) -> Option<u64> {
        self.ending.front().map(|(due_ns, ..)| *due_ns)
    }

    /// A flow's first packet was seen.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn opened<S: EntrySource>(
        &mut self,
        open: &FlowOpened,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        let key = open.seen.key;
        if self.rows.get(&key).is_some_and(|row| row.first_ns >= open.seen.time_ns) {
            return Ok(()); // found in the table before its event came
        }
        let Some(entry) = source.read(&key)? else { return Ok(()) };
        self.open(key, open.seen.time_ns, open.incarnation, None, &entry, report);
        Ok(())
    }

    /// A closed connection's key is used again; `before` is its entry at its end.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn reopened<S: EntrySource>(
        &mut self,
        open: &FlowOpened,
        before: &FlowEntry,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        let key = open.seen.key;
        let row = self.row_taken(&key, before);
        self.leave(key, row, before, (FlowEvent::Close, state_of(before.state), open.seen.time_ns), report);
        let Some(entry) = source.read(&key)? else { return Ok(()) };
        self.open(key, open.seen.time_ns, open.incarnation, Some(Box::new(*before)), &entry, report);
        Ok(())
    }

    /// A connection ended by FIN or RST. It is reported when it was quiet for
    /// [`LINGER_NS`], by [`Table::end_closed`].
    pub fn closed(&mut self, close: &FlowClosed) {
        let Some(row) = self.rows.get_mut(&close.seen.key) else { return };
        if row.incarnation == close.incarnation && row.first_ns <= close.seen.time_ns && !row.ending {
            row.ending = true;
            self.ending.push_back((close.seen.time_ns + LINGER_NS, close.seen.key, close.incarnation));
        }
    }

    /// Reports and removes the connections whose time has come.
    ///
    /// # Errors
    /// The source cannot be changed.
    pub fn end_closed<S: EntrySource>(
        &mut self,
        now_ns: u64,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        while let Some((due_ns, key, incarnation)) = self.ending.front().copied() {
            if due_ns > now_ns {
                break;
            }
            self.ending.pop_front();
            let current = |row: &Row| row.incarnation == incarnation;
            if !self.rows.get(&key).is_some_and(current) {
                continue;
            }
            if let Some(entry) = source.read(&key)? {
                if entry.incarnation != incarnation {
                    continue; // in use again: its event is on its way
                }
                if entry.last_ns + LINGER_NS > now_ns {
                    self.ending.push_back((now_ns + LINGER_NS, key, incarnation));
                    continue;
                }
            }
            self.take_out(key, None, now_ns, source, report)?;
        }
        Ok(())
    }

    /// Reads the whole table: finds flows whose events were lost, ends those
    /// that are idle, and, with `updates`, reports those that have news.
    /// `table_size` is the kernel table's.
    ///
    /// # Errors
    /// The source cannot be read or changed.
    pub fn sweep<S: EntrySource>(
        &mut self,
        now_ns: u64,
        table_size: u64,
        updates: bool,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        let mut ended = Vec::new();
        let mut found = Vec::new();
        let mut entries = 0;
        let pressure = self.pressure;
        source.visit(&mut |key, entry| {
            entries += 1;
            if entry.last_ns + idle_ns(key.protocol, &entry, pressure) <= now_ns {
                ended.push((entry.last_ns, key));
            }
            match self.rows.get_mut(&key) {
                None => {
                    if entry.first_ns + EVENT_DELAY_NS < now_ns {
                        found.push((key, entry));
                    }
                }
                Some(row) => {
                    if entry.incarnation != row.incarnation && entry.first_ns + EVENT_DELAY_NS < now_ns {
                        // The event of its reuse was lost: two connections stay one row.
                        row.incarnation = entry.incarnation;
                        row.ending = false;
                    }
                    if updates && !row.ending && row.incarnation == entry.incarnation {
                        row.update(key, &entry, report);
                    }
                }
            }
        })?;
        for (key, entry) in found {
            self.open(key, entry.first_ns, entry.incarnation, None, &entry, report);
        }
        self.pressure = Pressure::of(entries, table_size);
        // A table has no order of its own.
        ended.sort_unstable();
        for (_, key) in ended {
            self.take_out(key, Some(State::Idle), now_ns, source, report)?;
        }
        Ok(())
    }

    /// Ends the flows that were seen at devices that are gone.
    ///
    /// # Errors
    /// The source cannot be read or changed.
    pub fn interfaces_gone<S: EntrySource>(
        &mut self,
        ifindexes: &[u32],
        now_ns: u64,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        let mut ended = Vec::new();
        source.visit(&mut |key, entry| {
            if entry.points().any(|(_, hook, _)| ifindexes.contains(&hook.ifindex)) {
                ended.push(key);
            }
        })?;
        for key in ended {
            self.take_out(key, Some(State::Idle), now_ns, source, report)?;
        }
        Ok(())
    }

    /// Takes on what was counted before this process began: the flow is known from now on, and nothing is
    /// reported of it.
    pub fn adopt(&mut self, key: FlowKey, entry: &FlowEntry) {
        let mut row = Row::new(entry.first_ns, entry.incarnation, None);
        row.reported_packets = counted_packets(entry);
        self.rows.insert(key, row);
    }

    /// Reports every flow that lives, once more, without an effect on what is reported later; and sums over all
    /// flows, those that live and those that have ended.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn tell_all<S: EntrySource>(
        &mut self,
        now_ns: u64,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<Totals, S::Error> {
        let mut totals = self.totals.clone();
        source.visit(&mut |key, entry| {
            let mut unknown = None;
            let row = self.rows.get_mut(&key).unwrap_or_else(|| {
                totals.flows += 1;
                let row = unknown.insert(Row::new(entry.first_ns, entry.incarnation, None));
                row.report(key, &entry, (FlowEvent::Open, opening_state(&entry), entry.first_ns), report);
                row
            });
            let reported_packets = row.reported_packets;
            let ended = row.ending || entry.state >= FlowState::Closed;
            let event = if ended { FlowEvent::Close } else { FlowEvent::Update };
            totals.add(&row.report(key, &entry, (event, state_of(entry.state), now_ns), report));
            row.reported_packets = reported_packets;
        })?;
        Ok(totals)
    }

    /// Sums over all flows, those that live and those that have ended.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn sums<S: EntrySource>(&self, source: &mut S) -> Result<Totals, S::Error> {
        let mut totals = self.totals.clone();
        source.visit(&mut |key, entry| match self.rows.get(&key) {
            Some(row) => totals.add(&row.own_part(&entry)),
            None => totals.add(&entry),
        })?;
        Ok(totals)
    }

    fn open(
        &mut self,
        key: FlowKey,
        first_ns: u64,
        incarnation: u32,
        base: Option<Box<FlowEntry>>,
        entry: &FlowEntry,
        report: &mut impl FnMut(Report<'_>),
    ) {
        let mut row = Row::new(first_ns, incarnation, base);
        row.report(key, entry, (FlowEvent::Open, opening_state(entry), first_ns), report);
        if self.rows.insert(key, row).is_none() {
            self.totals.flows += 1;
        }
    }

    /// `state`: how it ended, if its entry does not say so.
    fn take_out<S: EntrySource>(
        &mut self,
        key: FlowKey,
        state: Option<State>,
        now_ns: u64,
        source: &mut S,
        report: &mut impl FnMut(Report<'_>),
    ) -> Result<(), S::Error> {
        let entry = source.remove(&key)?;
        let Some(entry) = entry else {
            self.rows.remove(&key);
            return Ok(());
        };
        let row = self.row_taken(&key, &entry);
        let own = state_of(entry.state);
        let state = if entry.state >= FlowState::Closed { own } else { state.unwrap_or(own) };
        self.leave(key, row, &entry, (FlowEvent::Close, state, now_ns), report);
        Ok(())
    }

    /// The row of an entry that leaves; a new one if its opening was never seen.
    fn row_taken(&mut self, key: &FlowKey, entry: &FlowEntry) -> Row {
        self.rows.remove(key).unwrap_or_else(|| {
            self.totals.flows += 1;
            Row::new(entry.first_ns, entry.incarnation, None)
        })
    }

    /// The last report of a flow, and its place in the totals.
    fn leave(
        &mut self,
        key: FlowKey,
        mut row: Row,
        entry: &FlowEntry,
        what: (FlowEvent, State, u64),
        report: &mut impl FnMut(Report<'_>),
    ) {
        self.totals.add(&row.report(key, entry, what, report));
    }
}

#[cfg(test)]
mod tests;
