//! Which answer belongs to which command.

use super::command::{Channels, Effect, ReplyMode, Subscription};
use super::reply::Reply;
use super::{Asked, Redis, Subscribed, outcome, probe};
use crate::l7::{Context, Trust, Why};
use crate::record::Capture;

impl Redis {
    /// A command has come whole.
    pub(super) fn request(&mut self, cx: &mut Context<'_>) -> Result<(), Why> {
        let Some(request) = self.requests.take() else { return Ok(()) };

        let mut command = self.requests.describe(self.database, self.reveal);
        command.exchange.request = Some(request.part);
        command.exchange.note(request.capture);
        let effect = command.effect;
        if effect == Effect::Acknowledge {
            return Err(Why::NoRequests);
        }
        let skipped = self.mode == ReplyMode::Skip;
        let mut silent = self.mode != ReplyMode::On;
        if skipped {
            self.mode = ReplyMode::On;
        }
        // Whether it is answered depends on what the server makes of it.
        let mut unclear = false;
        match effect {
            Effect::Reply(Some(_)) if self.in_multi => unclear = true,
            Effect::Reply(Some(mode)) => {
                silent = mode != ReplyMode::On;
                if !(mode == ReplyMode::Skip && self.mode == ReplyMode::Off) {
                    self.mode = mode;
                }
            }
            Effect::Reset => {
                unclear = skipped;
                silent = skipped;
                self.mode = ReplyMode::On;
            }
            _ => {}
        }
        match effect {
            Effect::Multi => self.in_multi = true,
            Effect::Exec | Effect::Discard | Effect::Reset => self.in_multi = false,
            _ => {}
        }
        let asked =
            Asked { command, after_silence: self.silence, unsettled: self.unsettled, confirmed: None };
        if unclear {
            self.pending.lose_requests(false);
            self.doubt = self.doubt.max(Some(Capture::Complete));
        }
        if unclear || silent {
            self.silence |= silent;
            cx.emit(outcome::exchange(Some(asked.command), None, None));
            return Ok(());
        }
        self.silence = false;
        self.asked_since = self.asked_since.saturating_add(1);
        self.pending_bytes += asked.command.memory_bytes;
        if self.unsettled && matches!(effect, Effect::Subscription(..)) {
            // Its answers say themselves what they are.
            self.pending.lose_requests(false);
            self.unpaired(cx, asked, self.doubt);
            return Ok(());
        }
        match self.pending.ask(asked, request.part.times()) {
            Err(refused) => self.unpaired(cx, refused, self.doubt),
            Ok(Trust::Certain) if !self.unsettled => self.doubt = None,
            Ok(Trust::Certain) => {}
            Ok(trust @ Trust::Likely) => {
                if let Some(asked) = self.pending.back_mut() {
                    asked.command.exchange.note(trust.mark(self.doubt.unwrap_or_default()));
                }
            }
        }
        Ok(())
    }

    /// A command without its answer.
    pub(super) fn unpaired(&mut self, cx: &mut Context<'_>, asked: Asked, capture: Option<Capture>) {
        self.pending_bytes = self.pending_bytes.saturating_sub(asked.command.memory_bytes);
        let reply = asked.confirmed.as_deref().map(|(reply, _)| reply);
        let mut exchange = outcome::exchange(Some(asked.command), reply, None);
        if let Some(capture) = capture {
            exchange.note(capture);
        }
        cx.emit(exchange);
    }

    /// Nothing that waits can be paired.
    pub(super) fn give_up_pending(&mut self, cx: &mut Context<'_>, capture: Capture) {
        for asked in self.pending.lose_answers() {
            self.unpaired(cx, asked, Some(capture));
        }
        self.doubt = self.doubt.max(Some(capture));
    }

    /// A reply, or a push, has come whole.
    pub(super) fn reply(&mut self, cx: &mut Context<'_>) -> Result<(), Why> {
        let Some(reply) = self.replies.take() else { return Ok(()) };

        self.new |= reply.is_new();
        let label = reply.label();
        let confirms = label.and_then(Subscription::named).filter(|_| reply.subscribed().is_some());
        let message = label.is_some_and(probe::is_message_label);
        let front = self.pending.front_mut().map(|asked| asked.command.effect);
        if let Some(confirms) = confirms
            && (reply.is_push() || !self.new)
            && matches!(front, Some(Effect::Subscription(asked, _)) if asked == confirms)
        {
            self.confirmation(cx, reply, confirms);
            return Ok(());
        }
        let unasked = match (reply.is_push(), confirms.is_some() || message, self.new) {
            (true, ..) => true,
            (false, false, _) | (false, true, true) => false,
            // In version 2, only places tell messages from answers.
            (false, true, false) => match (self.subscribed, front) {
                (Some(Subscribed { named: 0, patterns: 0, shards: 0 }), Some(_)) => false,
                (Some(_), _) | (None, None) => true,
                (None, Some(Effect::Pong | Effect::Subscription(..) | Effect::Reset)) => true,
                (None, Some(_)) => {
                    self.give_up_pending(cx, Capture::Complete);
                    true
                }
            },
        };
        if unasked {
            if let Some(confirms) = confirms {
                self.count(confirms, &reply);
            }
            cx.emit(outcome::push(&reply));
            return Ok(());
        }
        self.answer(cx, &reply)
    }

    fn answer(&mut self, cx: &mut Context<'_>, reply: &Reply) -> Result<(), Why> {
        if reply.is_error() && self.pending.front_mut().is_some_and(|asked| asked.after_silence) {
            // Perhaps it says that CLIENT REPLY itself was refused.
            self.give_up_pending(cx, Capture::Complete);
            self.subscribed = None;
        }
        let since = std::mem::take(&mut self.asked_since);
        let asked = self.pending.answer(reply.part.last_ns);
        // A command that was sent alone, and has its answer.
        self.unsettled &= since != 1 || !self.pending.is_empty();
        let asked = match asked {
            Some(asked) if asked.unsettled => {
                self.unpaired(cx, asked, self.doubt);
                None
            }
            asked => asked,
        };
        let Some(asked) = asked else {
            if matches!(reply.kind, Some(b'+')) && is_stream(&reply.text) || is_replica(reply) {
                return Err(Why::NoRequests);
            }
            let mut exchange = outcome::exchange(None, Some(reply), None);
            if let Some(doubt) = self.doubt {
                exchange.note(doubt);
            }
            cx.emit(exchange);
            return Ok(());
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(asked.command.memory_bytes);
        let effect = asked.command.effect;
        let queued = self.queued;
        self.happened(effect, reply);
        let mut exchange = outcome::exchange(Some(asked.command), Some(reply), self.database);
        if effect == Effect::Exec {
            outcome::batch(&mut exchange, queued);
        }
        cx.emit(exchange);
        let streams = matches!(effect, Effect::Monitor | Effect::Replicate);
        if streams && !reply.is_error() && reply.text.as_slice() != b"QUEUED" {
            Err(Why::NoRequests)
        } else {
            Ok(())
        }
    }

    /// What an answered command changed.
    fn happened(&mut self, effect: Effect, reply: &Reply) {
        let queued = reply.kind == Some(b'+') && reply.text.as_slice() == b"QUEUED";
        if queued {
            self.queued += 1;
        }
        match effect {
            Effect::Exec | Effect::Discard | Effect::Multi if !reply.is_error() || effect == Effect::Exec => {
                self.queued = 0;
            }
            _ if reply.is_error() => {}
            // It happens later, or never.
            Effect::Select(_) if queued => self.database = None,
            Effect::Subscription(..) if queued => self.subscribed = None,
            Effect::Select(database) => self.database = database,
            Effect::Hello(Some(version)) if !queued => self.new = version >= 3,
            Effect::Reset => {
                self.new = false;
                self.queued = 0;
                self.database = Some(0);
                self.subscribed = Some(Subscribed::default());
            }
            _ => {}
        }
    }

    /// One more channel is subscribed, or not any more.
    fn confirmation(&mut self, cx: &mut Context<'_>, reply: Reply, confirms: Subscription) {
        let before = self.subscribed.map(|subscribed| match confirms.of {
            Channels::Named => subscribed.named,
            Channels::Patterns => subscribed.patterns,
            Channels::Shards => subscribed.shards,
        });
        self.count(confirms, &reply);
        let time_ns = reply.part.last_ns;
        let Some(asked) = self.pending.front_mut() else { return };
        let left = match (asked.confirmed.take(), asked.command.effect, before) {
            (Some(mut confirmed), ..) => {
                let (first, left) = &mut *confirmed;
                first.part.grow(reply.part.last_ns, reply.part.bytes);
                first.capture = first.capture.max(reply.capture);
                *left = left.saturating_sub(1);
                let left = *left;
                asked.confirmed = Some(confirmed);
                left
            }
            (None, Effect::Subscription(_, Some(channels)), _) | (None, _, Some(channels)) => {
                let left = channels.saturating_sub(1);
                asked.confirmed = Some(Box::new((reply, left)));
                left
            }
            (None, _, None) => {
                // Of how many it is the first cannot be known.
                self.give_up_pending(cx, Capture::Complete);
                return;
            }
        };
        if left > 0 {
            return;
        }
        if let Some(asked) = self.pending.answer(time_ns) {
            self.pending_bytes = self.pending_bytes.saturating_sub(asked.command.memory_bytes);
            let reply = asked.confirmed.as_deref().map(|(reply, _)| reply);
            cx.emit(outcome::exchange(Some(asked.command), reply, self.database));
        }
    }

    /// Keeps count of subscriptions, of which confirmations tell the sum.
    fn count(&mut self, confirms: Subscription, reply: &Reply) {
        let (Some(subscribed), Some(sum)) = (&mut self.subscribed, reply.subscribed()) else { return };
        match confirms.of {
            Channels::Named => subscribed.named = sum.saturating_sub(subscribed.patterns),
            Channels::Patterns => subscribed.patterns = sum.saturating_sub(subscribed.named),
            Channels::Shards => subscribed.shards = sum,
        }
    }

    /// What was read of an answer that will not become whole.
    pub(super) fn broken_answer(&mut self, cx: &mut Context<'_>, capture: Capture) {
        let Some(mut reply) = self.replies.take() else { return };
        let unsubscribed = matches!(self.subscribed, Some(Subscribed { named: 0, patterns: 0, shards: 0 }));
        match reply.kind {
            None | Some(b'>') => return,
            Some(b'*') if !self.new && !unsubscribed => return,
            Some(_) => {}
        }
        let clear = self.pending.front_mut().is_some_and(|asked| {
            !asked.after_silence
                && !asked.unsettled
                && asked.confirmed.is_none()
                && asked.command.effect == Effect::None
        });
        if clear && let Some(asked) = self.pending.answer(reply.part.last_ns) {
            reply.capture = reply.capture.max(capture);
            self.pending_bytes = self.pending_bytes.saturating_sub(asked.command.memory_bytes);
            cx.emit(outcome::exchange(Some(asked.command), Some(&reply), self.database));
        }
    }

    /// What was read of a command that will not become whole.
    pub(super) fn broken_request(&mut self, cx: &mut Context<'_>, capture: Capture) {
        let Some(request) = self.requests.take() else { return };
        let mut command = self.requests.describe(self.database, self.reveal);
        command.exchange.request = Some(request.part);
        command.exchange.note(request.capture.max(capture));
        cx.emit(outcome::exchange(Some(command), None, None));
    }
}

/// Whether a line begins something that is not made of answers.
fn is_stream(text: &[u8]) -> bool {
    text.starts_with(b"FULLRESYNC ") || text.starts_with(b"CONTINUE") || probe::is_monitored(text)
}

/// Whether this is a replica's report: then the client is the other end.
fn is_replica(reply: &Reply) -> bool {
    reply.label().is_none() && reply.first().is_some_and(|first| first.eq_ignore_ascii_case(b"REPLCONF"))
}
