//! Protocols that begin in plain words, in which the client asks for TLS:
//! SMTP, LMTP, FTP, IMAP, POP3, NNTP and XMPP.
//!
//! Nothing of them is told. All that is looked for is the answer after which TLS
//! begins; where none comes soon, the connection is not understood.
//!
//! Both ends say lines (XMPP: elements). The client's first one tells which
//! protocol it is; the server's answers are counted, because the client may have
//! asked more than that.

use super::{
    Context, Direction, End, Gap, Guess, Heads, Parser, Protocol, Resync, Skipped, Step, Times, Transport,
    Why, tls,
};

/// Longer than what either end says before TLS.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Who has not asked for TLS by then will not.
const COMMANDS_MAX: u32 = 16;

/// It leads to TLS, and tells nothing itself.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: tls::PROTOCOL.name,
    transports: &[Transport::Tcp],
    ports: &[],
    message_bytes_max: LINE_BYTES_MAX,
    probe,
    parser: |_| Box::new(Starttls::default()),
};

/// How a protocol does it.
struct Dialect {
    /// What the server says first; nothing, if the client does.
    greeting: &'static str,
    /// What the client says first, if it may want TLS, in capital letters.
    first: &'static [&'static str],
    /// How it asks.
    asks: &'static [&'static str],
    /// The server's answer, if it agrees.
    agrees: &'static str,
    /// How a line ends.
    end: u8,
    /// Whether a command begins with a tag, and its answer too.
    tagged: bool,
    /// Whether a line answers a command, or is the greeting.
    answers: fn(&[u8]) -> bool,
}

static DIALECTS: [Dialect; 6] = [
    Dialect {
        greeting: "220",
        first: &["EHLO", "LHLO"],
        asks: &["STARTTLS"],
        agrees: "220",
        end: b'\n',
        tagged: false,
        answers: ends_reply,
    },
    Dialect {
        greeting: "220",
        first: &["AUTH", "FEAT"],
        asks: &["AUTH TLS", "AUTH TLS-C", "AUTH SSL"],
        agrees: "234",
        end: b'\n',
        tagged: false,
        answers: ends_reply,
    },
    Dialect {
        greeting: "20",
        first: &["CAPABILITIES", "STARTTLS", "MODE"],
        asks: &["STARTTLS"],
        agrees: "382",
        end: b'\n',
        tagged: false,
        answers: ends_reply,
    },
    Dialect {
        greeting: "* OK",
        first: &["CAPABILITY", "STARTTLS", "ID", "NOOP"],
        asks: &["STARTTLS"],
        agrees: "OK",
        end: b'\n',
        tagged: true,
        answers: |line| !line.starts_with(b"*") && !line.starts_with(b"+"),
    },
    Dialect {
        greeting: "+OK",
        first: &["CAPA", "STLS"],
        asks: &["STLS"],
        agrees: "+OK",
        end: b'\n',
        tagged: false,
        answers: |line| line.starts_with(b"+OK") || line.starts_with(b"-ERR"),
    },
    Dialect {
        greeting: "",
        first: &["<?XML VERSION=", "<STREAM:STREAM"],
        asks: &["<STARTTLS"],
        agrees: "<PROCEED",
        end: b'>',
        tagged: false,
        answers: |line| line.starts_with(b"<proceed") || line.starts_with(b"<failure"),
    },
];

/// Of answers in several lines, the last has no `-` after its number.
fn ends_reply(line: &[u8]) -> bool {
    matches!(line, [a, b, c, rest @ ..]
        if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) && rest.first() != Some(&b'-'))
}

impl Dialect {
    fn is_xml(&self) -> bool {
        self.end == b'>'
    }

    /// The command itself.
    fn command<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let tag = line.iter().position(|byte| *byte == b' ').filter(|_| self.tagged);
        line.get(tag.map_or(0, |space| space + 1)..).unwrap_or_default().trim_ascii()
    }

    /// Whether a client begins like this; `More`, if more of it could.
    fn guess(&self, heads: &Heads<'_>) -> Guess {
        let greeting = begins(heads.to_client, self.greeting);
        let first = heads.to_server.trim_ascii_start();
        let ends = first.iter().position(|byte| matches!(byte, b'\n' | b'>'));
        let line = first.get(..ends.unwrap_or(first.len())).unwrap_or_default();
        if line.len() > LINE_BYTES_MAX || self.tagged && line.first().is_some_and(|first| !is_tag(*first)) {
            return Guess::No;
        }
        let tag_only = self.tagged && ends.is_none() && !line.contains(&b' ');
        let said = self.first.iter().map(|word| begins(self.command(line), word)).max();
        let said = match said {
            _ if tag_only && line.len() < 16 => Guess::More,
            // In one line it must be all.
            Some(Guess::More) if ends.is_some() => Guess::No,
            Some(Guess::Sure) if self.is_xml() => jabber(first),
            said => said.unwrap_or(Guess::No),
        };
        match (greeting, said) {
            (Guess::No, _) | (_, Guess::No) => Guess::No,
            (Guess::Sure, Guess::Sure) => Guess::Sure,
            _ => Guess::More,
        }
    }
}

/// Whether a tag may begin with it; many clients use letters, some only `.`.
fn is_tag(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*+\"\\]".contains(&byte)
}

/// XML that is XMPP says so in its first element.
fn jabber(head: &[u8]) -> Guess {
    const NAMESPACE: &[u8] = b"http://etherx.jabber.org/streams";
    match head.windows(NAMESPACE.len()).any(|window| window == NAMESPACE) {
        true => Guess::Sure,
        false if head.iter().filter(|byte| **byte == b'>').count() < 2 && head.len() < LINE_BYTES_MAX => {
            Guess::More
        }
        false => Guess::No,
    }
}

/// Whether bytes begin with a word, whatever its case.
fn begins(bytes: &[u8], word: &str) -> Guess {
    let known = bytes.len().min(word.len());
    let same = bytes.iter().zip(word.as_bytes()).all(|(byte, letter)| byte.to_ascii_uppercase() == *letter);
    match same {
        false => Guess::No,
        true if known < word.len() => Guess::More,
        true => Guess::Sure,
    }
}

fn probe(heads: &Heads<'_>) -> Guess {
    DIALECTS.iter().map(|dialect| dialect.guess(heads)).max().unwrap_or(Guess::No)
}

/// A connection until TLS begins in it.
#[derive(Default)]
struct Starttls {
    /// Known by the client's first line.
    dialect: Option<&'static Dialect>,
    commands: u32,
    answers: u32,
    /// The answer that decides, once the client has asked.
    decisive: Option<u32>,
    lost: bool,
    /// By [`Direction::index`]: how far into the bytes given no line ends.
    scanned: [usize; 2],
}

impl Starttls {
    fn client(&mut self, line: &[u8]) {
        let upper = line.to_ascii_uppercase();
        let heads = |dialect: &&Dialect| {
            dialect.first.iter().any(|word| begins(dialect.command(&upper), word) == Guess::Sure)
        };
        let Some(dialect) = self.dialect.or_else(|| DIALECTS.iter().find(heads)) else {
            self.lost = true;
            return;
        };
        self.dialect = Some(dialect);
        let command = dialect.command(&upper);
        let asks = dialect.asks.iter().any(|word| match dialect.is_xml() {
            true => begins(command, word) == Guess::Sure,
            false => command == word.as_bytes(),
        });
        if asks {
            // The greeting is an answer to nothing, but for IMAP's, which is none.
            let greeted = u32::from(!dialect.tagged && !dialect.is_xml());
            self.decisive = Some(if dialect.is_xml() { self.answers } else { self.commands + greeted });
        }
        self.commands += 1;
        self.lost |= self.commands > COMMANDS_MAX;
    }

    /// Whether TLS begins after this line.
    fn server(&mut self, dialect: &Dialect, line: &[u8]) -> bool {
        if !(dialect.answers)(line) {
            return false;
        }
        let decides = self.decisive == Some(self.answers);
        self.answers += 1;
        if !decides {
            return false;
        }
        self.decisive = None;
        begins(dialect.command(line), dialect.agrees) == Guess::Sure
    }
}

impl Parser for Starttls {
    fn data(&mut self, _: &mut Context<'_>, direction: Direction, bytes: &[u8], _: Times) -> Step {
        if self.lost {
            return Step::Bypass(Why::NotUnderstood);
        }
        let dialect = match (direction, self.dialect) {
            (Direction::ToServer, _) if self.decisive.is_some() => return Step::WaitPeer,
            (Direction::ToServer, _) => None,
            (Direction::ToClient, None) => return Step::WaitPeer,
            (Direction::ToClient, known) => known,
        };
        let scanned = &mut self.scanned[direction.index()];
        let is_end = |byte: &u8| match self.dialect {
            Some(dialect) => *byte == dialect.end,
            None => matches!(byte, b'\n' | b'>'),
        };
        let Some(end) = bytes.iter().skip(*scanned).position(is_end) else {
            *scanned = bytes.len();
            return Step::NeedMore(bytes.len() + 1);
        };
        let end = std::mem::take(scanned) + end + 1;
        let line = bytes.get(..end).unwrap_or_default().trim_ascii();
        match dialect {
            None => self.client(line),
            Some(dialect) => {
                if self.server(dialect, line) {
                    return Step::Switch(end, Some(&tls::PROTOCOL));
                }
            }
        }
        if self.lost { Step::Bypass(Why::NotUnderstood) } else { Step::Consumed(end) }
    }

    fn skipped(&mut self, _: &mut Context<'_>, _: Direction, _: Skipped) {}

    fn lost(&mut self, _: &mut Context<'_>, _: Direction, _: &[u8], _: Times, _: Option<Gap>) {
        self.lost = true;
    }

    /// It was recognised by how both ends begin; after a loss nothing is looked for.
    fn resync(&mut self, _: Direction, _: &[u8]) -> Resync {
        Resync::At(0)
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, _: &mut Context<'_>) {}

    fn memory_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::harness::{self, Played, Turn, answer, ask, play};

    /// What is said before TLS, by protocol.
    const TALKS: [&[&str]; 6] = [
        &[
            "220-mail.example\r\n220 ready\r\n",
            "EHLO a\r\n",
            "250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n",
            "starttls\r\n",
            "220 go ahead\r\n",
        ],
        &[
            "220 ftp\r\n",
            "FEAT\r\n",
            "211-Features:\r\n AUTH TLS\r\n211 End\r\n",
            "AUTH TLS\r\n",
            "234 ok\r\n",
        ],
        &["200 news\r\n", "CAPABILITIES\r\n", "101 list\r\nSTARTTLS\r\n.\r\n", "STARTTLS\r\n", "382 go\r\n"],
        &[
            "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n",
            ". CAPABILITY\r\n. starttls\r\n",
            "* CAPABILITY IMAP4rev1\r\n. OK done\r\n. OK begin\r\n",
        ],
        &["+OK pop\r\n", "CAPA\r\n", "+OK list\r\nSTLS\r\n.\r\n", "STLS\r\n", "+OK begin\r\n"],
        &[
            "",
            "<?xml version='1.0'?><stream:stream to='a' xmlns:stream='http://etherx.jabber.org/streams'>",
            "<?xml version='1.0'?><stream:stream id='1'><stream:features><starttls xmlns='t'><required/>\
             </starttls></stream:features>",
            "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        ],
    ];

    fn turns(talk: &[&str]) -> Vec<Turn> {
        let said = talk.iter().enumerate().filter(|(_, text)| !text.is_empty());
        said.map(|(place, text)| if place % 2 == 0 { answer(text) } else { ask(text) }).collect()
    }

    #[test]
    fn tls_begins_where_both_have_agreed() {
        for talk in TALKS {
            let turns = [turns(talk), tls::tests::old_handshake()].concat();
            let exchanges = play(&PROTOCOL, &turns);
            assert_eq!(exchanges.len(), 1, "{talk:?}");
            assert_eq!(exchanges[0].target.as_deref(), Some("shop.example"));
            assert_eq!(exchanges[0].ok, Some(true));
            harness::check(&PROTOCOL, &turns);
        }
    }

    #[test]
    fn who_does_not_agree_goes_on_in_plain() {
        let refused = |answer: &str, talk: &[&str]| {
            let (last, before) = talk.split_last().unwrap();
            assert_ne!(*last, answer);
            [turns(before), vec![harness::answer(answer)], tls::tests::old_handshake()].concat()
        };
        for (talk, answer) in TALKS.iter().zip([
            "454 no\r\n",
            "500 no\r\n",
            "580 no\r\n",
            ". OK done\r\n. BAD no\r\n",
            "-ERR no\r\n",
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        ]) {
            assert_eq!(play(&PROTOCOL, &refused(answer, talk)), [], "{talk:?}");
        }
    }

    #[test]
    fn who_never_asks_is_not_followed() {
        let mut played = Played::new(&PROTOCOL);
        played.turns(&turns(&["220 mail\r\n", "EHLO a\r\n", "250 ok\r\n"]));
        for _ in 0..20 {
            played.turns(&turns(&["250 ok\r\n", "MAIL FROM:<a>\r\n"]));
        }
        played.turns(&tls::tests::old_handshake()).finish(End::Fin);
        assert_eq!(played.exchanges, []);
    }

    #[test]
    fn other_words_are_not_taken_for_it() {
        for (asked, answered) in [
            ("QUIT\r\n", "+OK\r\n"),
            ("*1\r\n$4\r\nPING\r\n", "+OK\r\n"),
            ("SSH-2.0-a\r\n", "220 ssh\r\n"),
            ("<?xml version='1.0'?><soap>", ""),
            ("GET / HTTP/1.1\r\n\r\n", "200 OK\r\n"),
            ("EHLO a\r\n", "HTTP/1.1 200 OK\r\n"),
        ] {
            let heads = Heads {
                to_server: asked.as_bytes(),
                to_client: answered.as_bytes(),
                transport: Transport::Tcp,
            };
            assert_eq!(probe(&heads), Guess::No, "{asked:?}");
        }
    }

    #[test]
    fn time_grows_with_the_length_only() {
        harness::check_linear(&PROTOCOL, |length| {
            [turns(&TALKS[0][..2]), vec![answer("250-".repeat(length / 4))]].concat()
        });
    }
}
