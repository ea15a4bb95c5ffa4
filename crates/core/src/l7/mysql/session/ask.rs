//! What the client says.

use std::sync::Arc;

use super::{
    Answering, Asked, CLOSED_MAX, Capture, Command, Context, Direction, Effect, Gap, Header, Kind, Login,
    Message, Open, Part, Reading, Response, Said, Session, TEXT_BYTES_MAX, command, handshake,
};
use crate::l7::Trust;
use crate::l7::mysql::command::LAST_PREPARED;

impl Session {
    pub(in crate::l7::mysql) fn client_says(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        let Message { header, body, part, gap } = *message;
        if let Some(mut open) = self.open.take() {
            open.request.grow(part.last_ns, part.bytes);
            open.capture = open.capture.max(Capture::from(gap));
            return self.command(cx, open, header);
        }
        if self.follows(header) {
            return self.follow(header, part);
        }
        self.followed = None;
        let cut = body.len() < header.length;
        let Some(said) = command::read(body, cut, self.reading()) else {
            return self.pending.lose_requests(false);
        };
        let capture = Capture::from(gap).max(Capture::from(self.client_gap.take()));
        self.command(cx, Open { said, request: part, capture }, header);
    }

    /// The client's first packet; tells whether TLS begins after it.
    pub(in crate::l7::mysql) fn client_begins(
        &mut self,
        cx: &mut Context<'_>,
        message: &Message<'_>,
    ) -> bool {
        self.login = false;
        let Message { header, body, part, gap } = *message;
        match handshake::response(header.length, body) {
            Some(Response::Encryption) => {
                let mut exchange = self.exchange("SSLREQUEST");
                exchange.request = Some(part);
                cx.emit(exchange);
                return true;
            }
            Some(Response::Login(capabilities, login)) => {
                self.agreed = Some(capabilities.and(self.server));
                let command = Command::login(&login);
                let Login { user, database } = login;
                (self.who.user, self.who.database) = (user, database);
                self.ask(cx, command, part, Capture::from(gap), header.sequence.wrapping_add(1));
            }
            None => self.pending.lose_requests(false),
        }
        false
    }

    /// Whether a packet belongs to something that was said before: to a file, or
    /// to an authentication. Their numbers go on, and a command's begin at 0.
    pub(in crate::l7::mysql) fn follows(&self, header: Header) -> bool {
        let goes_on = self.followed.is_some_and(|last| last.wrapping_add(1) == header.sequence);
        header.sequence != 0 || self.file_open || goes_on
    }

    fn follow(&mut self, header: Header, part: Part) {
        let ends = header.length == 0;
        self.followed = if ends { None } else { Some(header.sequence) };
        self.file_open &= !ends;
        if let Some(asked) = self.pending.back_mut() {
            asked.request.bytes += part.bytes;
            asked.file_sent |= ends;
        }
    }

    fn reading(&self) -> Reading {
        Reading {
            escapes: self.escapes,
            attributes: self.agreed.map(handshake::Capabilities::query_attributes),
            reveal: self.reveal,
        }
    }

    /// A command, of which this is the last packet so far.
    fn command(&mut self, cx: &mut Context<'_>, open: Open, header: Header) {
        if header.is_continued() {
            self.open = Some(open);
            return;
        }
        let Open { said, request, capture } = open;
        if matches!(said, Said::Quit | Said::Closed(_))
            && let Some(frames) = &mut self.frame_bytes[Direction::ToServer.index()]
        {
            // It is not told; the compressed packet counts for what is.
            *frames += request.bytes;
        }
        match said {
            Said::Quit => {}
            Said::LongData => match &mut self.long_data {
                Some(data) => data.grow(request.last_ns, request.bytes),
                None => self.long_data = Some(request),
            },
            Said::Closed(number) => match self.pending.back_mut() {
                Some(asked) if asked.closed.len() < CLOSED_MAX => asked.closed.push(number),
                Some(_) => {} // it is forgotten when there are too many
                None => self.prepared.remove(number),
            },
            Said::Asked(command) => {
                self.ask(cx, command, request, capture, header.sequence.wrapping_add(1));
            }
        }
    }

    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        command: Command,
        request: Part,
        capture: Capture,
        first_answer: u8,
    ) {
        let asked = self.asked(command, request, capture, first_answer);
        let text_bytes = asked.statement.text.len() + asked.values.len();
        self.text_bytes += text_bytes;
        if self.text_bytes > TEXT_BYTES_MAX {
            self.mistrust(cx);
        }
        let alone = self.pending.is_empty();
        let answer = (asked.kind, first_answer);
        match self.pending.ask(asked, request.times()) {
            Ok(trust) => {
                if trust == Trust::Certain {
                    self.doubt = None;
                } else if let Some(asked) = self.pending.back_mut() {
                    asked.capture = asked.capture.max(trust.mark(self.doubt.unwrap_or_default()));
                }
                if alone && !matches!(self.answering, Answering::Greeting) {
                    self.answering = Answering::Idle;
                }
            }
            Err(asked) => {
                self.text_bytes = self.text_bytes.saturating_sub(text_bytes);
                self.no_answer(cx, &asked);
                self.doubt.get_or_insert(Capture::Complete);
                if alone {
                    self.unpaired = Some(answer);
                }
                if self.is_adrift() {
                    self.answering = Answering::Idle;
                }
            }
        }
        self.fresh = true;
    }

    fn asked(&mut self, command: Command, request: Part, capture: Capture, first_answer: u8) -> Asked {
        let Command { kind, operation, mut statement, mut prepared, mut values, effect } = command;
        if effect == Effect::Prepares {
            self.last_prepared = Arc::clone(&statement);
        }
        if prepared == Some(LAST_PREPARED) {
            statement = Arc::clone(&self.last_prepared);
            prepared = None;
        }
        let mut request = request;
        if matches!(kind, Kind::Results { .. })
            && prepared.is_some()
            && let Some(data) = self.long_data.take()
        {
            request = Part { first_ns: data.first_ns, bytes: request.bytes + data.bytes, ..request };
            // They do not hold what was sent before.
            values = Vec::new();
        }
        Asked {
            kind,
            operation,
            statement,
            prepared,
            values,
            effect,
            request,
            capture,
            first_answer,
            closed: Vec::new(),
            file_sent: false,
        }
    }

    /// A command of which only the beginning came.
    pub(super) fn cut_off(&mut self, cx: &mut Context<'_>, open: Open, capture: Capture) {
        if let Said::Asked(command) = open.said {
            let asked = self.asked(command, open.request, open.capture.max(capture), 0);
            self.no_answer(cx, &asked);
        }
    }

    /// Bytes of the client are missing, after the beginning of a packet perhaps.
    pub(in crate::l7::mysql) fn client_lost(
        &mut self,
        cx: &mut Context<'_>,
        kept: Option<&Message<'_>>,
        gap: Option<Gap>,
    ) {
        let capture = Capture::from(gap).max(Capture::Truncated);
        // A file, or an authentication, goes on with the command in front.
        let mut inside = self.followed.is_some() || self.file_open;
        if let Some(open) = self.open.take() {
            self.cut_off(cx, open, capture);
        } else if let Some(Message { header, body, part, .. }) = kept
            && !self.login
        {
            inside = self.follows(*header);
            if !inside && let Some(said) = command::read(body, true, self.reading()) {
                self.cut_off(cx, Open { said, request: *part, capture }, capture);
            }
        }
        self.login = false;
        self.followed = None;
        self.file_open = false;
        self.long_data = None;
        // Another user, another database, other statements: all of it may have
        // been asked for.
        self.prepared.clear();
        self.last_prepared = Arc::default();
        (self.who.user, self.who.database) = (None, None);
        self.pending.lose_requests(inside);
        self.unpaired = None;
        self.doubted(gap);
        self.lost_commands = true;
        self.client_gap = gap;
        if let Some(frames) = &mut self.frame_bytes[Direction::ToServer.index()] {
            *frames = 0;
        }
    }
}
