//! What the server says.

use super::{
    Agreed, Answer, Answering, Asked, Capabilities, Capture, Context, Direction, Effect, Gap, Heard, Kind,
    Message, Part, Progress, Session, handshake, wire,
};
use crate::l7::mysql::wire::HEADER_BYTES;

impl Session {
    pub(in crate::l7::mysql) fn server_says(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        match self.answering {
            Answering::Greeting => self.greeted(cx, message),
            Answering::Idle => self.begin_answer(cx, message),
            Answering::Answer(_) => self.go_on(cx, message),
            Answering::Adrift => {}
        }
    }

    fn greeted(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        self.answering = Answering::Idle;
        if let Some(greeting) = handshake::greeting(message.body) {
            self.server = Some(greeting.capabilities);
            self.is_mariadb = greeting.is_mariadb;
            self.escapes = Some(greeting.status & wire::NO_BACKSLASH_ESCAPES == 0);
        } else if message.body.first() == Some(&0xff) {
            // The server does not even want to know who it is.
            let mut answer = Answer::new(Kind::Login);
            answer.packet(message.header.length, message.body, self.agreed());
            self.unasked(cx, "LOGIN", &answer, message);
        } else {
            self.mistrust(cx);
        }
    }

    fn begin_answer(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        self.fresh = false;
        let paired = !self.pending.is_empty();
        if !paired && self.unpaired.is_none() && self.doubt.is_none() {
            let mut answer = Answer::new(Kind::Plain);
            let is_failure = message.body.first() == Some(&0xff);
            if is_failure
                && answer.packet(message.header.length, message.body, self.agreed()) == Progress::Whole
            {
                return self.unasked(cx, "", &answer, message);
            }
            return self.mistrust(cx);
        }
        let (kind, first) = self.expected();
        if self.frame_bytes[Direction::ToClient.index()].is_none() && first != message.header.sequence {
            return self.mistrust(cx);
        }
        let response = Part { bytes: 0, ..message.part };
        self.answering = Answering::Answer(Box::new(Heard {
            answer: Answer::new(kind),
            response,
            capture: Capture::Complete,
            paired,
            next: message.header.sequence,
            continued: false,
        }));
        self.go_on(cx, message);
    }

    fn go_on(&mut self, cx: &mut Context<'_>, message: &Message<'_>) {
        let agreed = self.agreed();
        let Answering::Answer(heard) = &mut self.answering else { return };
        let Message { header, body, part, gap } = *message;
        let jumps = heard.answer.kind() == Kind::Login || heard.answer.wants_file;
        let is_compressed = self.frame_bytes[Direction::ToClient.index()].is_some();
        if header.sequence != heard.next && !jumps && !is_compressed {
            return self.mistrust(cx);
        }
        heard.next = header.sequence.wrapping_add(1);
        heard.response.grow(part.last_ns, part.bytes);
        heard.capture = heard.capture.max(Capture::from(gap));
        let continues = std::mem::replace(&mut heard.continued, header.is_continued());
        if continues {
            return;
        }
        heard.answer.wants_file = false;
        let progress = heard.answer.packet(header.length, body, agreed);
        let wants_file = heard.answer.wants_file;
        match progress {
            Progress::More => {
                let sent = self.pending.front_mut().is_none_or(|asked| asked.file_sent);
                self.file_open = wants_file && !sent;
            }
            Progress::Whole => self.answered(cx),
            Progress::Broken => self.mistrust(cx),
        }
    }

    /// Takes the rows that lie whole at the beginning of these bytes: answers may be made of thousands, and of
    /// each only its length matters. How many bytes they take.
    pub(in crate::l7::mysql) fn take_rows(&mut self, bytes: &[u8], time_ns: u64) -> usize {
        let Answering::Answer(heard) = &mut self.answering else { return 0 };
        let is_compressed = self.frame_bytes[Direction::ToClient.index()].is_some();
        if is_compressed || heard.continued || !heard.answer.is_in_rows() {
            return 0;
        }
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..)
            && let Some(header) = wire::header(rest)
            && header.sequence == heard.next
            && !header.is_continued()
            && rest.len() >= header.packet_bytes()
            && header.length > 0
            && rest.get(HEADER_BYTES).is_some_and(|first| Answer::begins_row(*first))
        {
            taken += header.packet_bytes();
            heard.next = heard.next.wrapping_add(1);
            heard.answer.rows += 1;
        }
        if taken > 0 {
            heard.response.grow(time_ns, taken as u64);
        }
        taken
    }

    /// An answer is whole.
    fn answered(&mut self, cx: &mut Context<'_>) {
        self.unpaired = None;
        self.file_open = false;
        let Answering::Answer(heard) = std::mem::replace(&mut self.answering, Answering::Idle) else {
            return;
        };
        let asked = self.pending.answer(heard.response.last_ns);
        if let Some(status) = heard.answer.status {
            self.escapes = Some(status & wire::NO_BACKSLASH_ESCAPES == 0);
        }
        let ok = heard.answer.failure.is_none();
        match asked {
            Some(asked) if heard.paired => {
                self.emit(cx, &asked, &heard);
                if let (Some(number), Some(bound)) = (asked.prepared, self.bound(&asked)) {
                    self.prepared.set_types(number, bound.types);
                }
                if ok {
                    self.succeeded(&asked, &heard.answer);
                }
                for number in &asked.closed {
                    self.prepared.remove(*number);
                }
            }
            _ => self.orphan(cx, &heard),
        }
        if let (true, Some(schema)) = (ok, heard.answer.schema) {
            self.who.database = Some(schema).filter(|name| !name.is_empty());
        }
        if self.pending.is_empty() {
            self.text_bytes = 0;
        }
    }

    fn succeeded(&mut self, asked: &Asked, answer: &Answer) {
        match &asked.effect {
            Effect::None => {}
            Effect::Database(name) => self.who.database = Some(name.clone()),
            Effect::User(login) => {
                self.who.user.clone_from(&login.user);
                self.who.database.clone_from(&login.database);
                self.prepared.clear();
            }
            Effect::Prepares => {
                if let Some((number, parameters)) = answer.statement {
                    self.prepared.insert(number, &asked.statement, parameters);
                }
            }
            Effect::Resets => self.prepared.clear(),
        }
        match asked.kind {
            Kind::Login => self.logged_in = true,
            Kind::Stream => self.streams = true,
            _ => {}
        }
    }

    fn agreed(&self) -> Agreed {
        Agreed {
            tracks_state: self.agreed.is_some_and(Capabilities::tracks_state),
            sends_eof: self.agreed.map(Capabilities::sends_eof),
        }
    }

    /// What the server says does not fit: begin to pair anew.
    pub(super) fn mistrust(&mut self, cx: &mut Context<'_>) {
        let doubted = self.doubt.is_some();
        self.server_lost(cx, None);
        if doubted {
            // That it was answered is no proof any more.
            self.pending.lose_requests(false);
        }
    }

    pub(in crate::l7::mysql) fn server_lost(&mut self, cx: &mut Context<'_>, gap: Option<Gap>) {
        let capture = Capture::from(gap).max(Capture::Truncated);
        let answering = std::mem::replace(&mut self.answering, Answering::Adrift);
        let begun = match answering {
            Answering::Answer(mut heard) if heard.paired => {
                heard.capture = heard.capture.max(capture);
                Some(heard)
            }
            _ => None,
        };
        for (index, asked) in self.pending.lose_answers().into_iter().enumerate() {
            match &begun {
                Some(heard) if index == 0 => self.broken_off(cx, &asked, heard),
                _ => self.no_answer(cx, &Asked { capture: asked.capture.max(Capture::from(gap)), ..asked }),
            }
        }
        self.text_bytes = 0;
        self.unpaired = None;
        self.fresh = false;
        self.file_open = false;
        self.doubted(gap);
    }
}
