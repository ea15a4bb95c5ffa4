//! By order: the first answer belongs to the first request.

use std::collections::VecDeque;

use super::doubt::{Client, Doubt, Trust};
use crate::l7::Times;

/// For protocols that answer in the order of the requests.
///
/// Order alone pairs only as long as nothing is missing. After a loss, and after
/// joining a connection late, requests are refused ([`Fifo::ask`] gives them
/// back) until it is likely, and [`Trust`] says so until it is certain, that none is
/// under way that was not seen (see `doubt`).
#[derive(Debug)]
pub struct Fifo<T> {
    pending: VecDeque<T>,
    pending_max: usize,
    doubt: Option<Doubt>,
    client: Client,
    /// The last request that waits was lost in part, and nothing came since.
    lost_inside: bool,
    forgiving: bool,
}

impl<T> Fifo<T> {
    /// For a connection that was joined `late` or not; with room for so many
    /// requests without an answer.
    #[must_use]
    pub fn new(pending_max: usize, late: bool) -> Self {
        Self {
            pending: VecDeque::new(),
            pending_max,
            doubt: late.then(Doubt::default),
            client: Client::Waits(0),
            lost_inside: false,
            forgiving: false,
        }
    }

    /// For a protocol with requests that have no answer, and clients that hardly
    /// ever ask ahead. If one of those requests is lost, the next one looks as if
    /// it was asked ahead: that is not held against the client.
    #[must_use]
    pub fn forgiving(self) -> Self {
        Self { forgiving: true, ..self }
    }

    /// A request begins, of which the first bytes came at these times. It is given
    /// back if it cannot be told which answer will be its own.
    ///
    /// # Errors
    /// The request.
    pub fn ask(&mut self, request: T, times: Times) -> Result<Trust, T> {
        if !self.pending.is_empty() {
            self.client = Client::AsksAhead;
        }
        let trust = if self.doubt.is_some() { self.weigh(times) } else { Some(Trust::Certain) };
        let Some(trust) = trust else { return Err(request) };
        if self.pending.len() >= self.pending_max {
            match &mut self.doubt {
                Some(doubt) => doubt.refuse(),
                None => self.doubt = Some(Doubt::of_full_queue(self.pending.len(), times)),
            }
            return Err(request);
        }
        self.pending.push_back(request);
        Ok(trust)
    }

    /// Whether the request that comes now can be paired, in doubt.
    #[cold]
    fn weigh(&mut self, times: Times) -> Option<Trust> {
        let doubt = self.doubt.as_mut()?;
        if doubt.is_open() || doubt.misses_answer() && !self.forgiving {
            self.client = Client::AsksAhead;
        }
        let trust = doubt.ask(times, self.client);
        if trust == Some(Trust::Certain) {
            self.doubt = None;
        }
        trust
    }

    /// An answer has come whole, the last of it at this time: the request that it
    /// belongs to.
    pub fn answer(&mut self, time_ns: u64) -> Option<T> {
        let request = self.pending.pop_front();
        if let Client::Waits(rounds) = &mut self.client
            && request.is_some()
            && self.pending.is_empty()
            && self.doubt.as_ref().is_none_or(Doubt::is_of_answers)
        {
            *rounds = rounds.saturating_add(1);
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.answer(time_ns);
        }
        request
    }

    /// The request that the next answer belongs to.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.pending.front()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.pending.front_mut()
    }

    /// The request that was accepted last.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.pending.back_mut()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no request waits for its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes of requests are missing; those that wait keep their answers.
    /// `inside`: the loss began inside of the last request, so there may be no
    /// other one in it; nor in further losses before that one is answered.
    pub fn lose_requests(&mut self, inside: bool) {
        let inside = !self.pending.is_empty() && (inside || self.lost_inside);
        self.lost_inside = inside;
        self.doubted().lose_requests(inside);
    }

    /// Bytes of answers are missing: no request that waits can be paired.
    /// They are given back.
    pub fn lose_answers(&mut self) -> Vec<T> {
        self.doubted().lose_answers();
        self.pending.drain(..).collect()
    }

    /// Everything that still waits, because nothing more will come.
    pub fn drain(&mut self) -> Vec<T> {
        self.pending.drain(..).collect()
    }

    fn doubted(&mut self) -> &mut Doubt {
        let open = self.pending.len();
        self.doubt.get_or_insert_with(|| Doubt::after_loss(open))
    }
}
