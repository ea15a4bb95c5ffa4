//! What a command is called, which of its arguments are keys, and what it does
//! to the conversation.
//!
//! Only names and keys leave this file. Which arguments are keys is known by
//! their places (the same tables that Redis Cluster's clients have); everything
//! else, and all arguments of commands that are not known, becomes `?`.

use smol_str::{SmolStr, format_smolstr};

use super::SYSTEM;
use super::arguments::{Arguments, WORD_BYTES_MAX};
use super::keys::{Keys, Shown, is_of_keyed_module, is_procedure, known, shown};
use crate::l7::{Attribute, Exchange};
use crate::reveal::{Class, Reveal, names_password};
use crate::text::number;

/// Of the text of a command.
const TEXT_BYTES_MAX: usize = 512;
/// Of the names of its keys.
const TARGET_BYTES_MAX: usize = 256;
/// Stands for what did not fit.
const REST: &str = "...";
pub(super) const HIDDEN: &str = "?";

/// A command, redacted.
#[derive(Debug)]
pub(super) struct Command {
    /// What is told of it: its name with the subcommand (`CONFIG SET`), its keys,
    /// channels or index as the target, and all of it as an attribute.
    pub(super) exchange: Box<Exchange>,
    pub(super) effect: Effect,
    pub(super) errors: Errors,
    /// The one that was selected last when it was read, which is told in `exchange`.
    pub(super) database: Option<u64>,
    /// Heap memory held, in bytes, roughly.
    pub(super) memory_bytes: usize,
}

/// What is known of errors about a command.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Errors {
    /// They are made by the server itself: those of scripts and modules may say anything.
    pub(super) are_known: bool,
    /// What the server quotes in them may be shown.
    pub(super) are_shown: bool,
    /// The command's name is none that is known: unless the server knows it, it may be
    /// anything.
    pub(super) name_is_guess: bool,
}

/// What a command does to the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// It cannot be answered with an array of three, also while subscribed.
    Pong,
    /// Answered once for each channel; `None`: for each that is subscribed.
    Subscription(Subscription, Option<u64>),
    /// Then the server sends what others ask.
    Monitor,
    /// Then the server sends its data.
    Replicate,
    /// A replica's report, which is not answered.
    Acknowledge,
    Select(Option<u64>),
    /// To which version of the protocol.
    Hello(Option<u64>),
    Reset,
    Multi,
    Exec,
    Discard,
    /// `CLIENT REPLY`.
    Reply(Option<ReplyMode>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    Skip,
}

/// What a confirmation confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) of: Channels,
    /// `unsubscribe`.
    pub(super) ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channels {
    Named,
    Patterns,
    Shards,
}

impl Subscription {
    /// By the name of the command, which is also that of its confirmation.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let of = |of, ends| Some(Self { of, ends });
        let is = |expected: &[u8]| name.eq_ignore_ascii_case(expected);
        match name.len() {
            9 if is(b"SUBSCRIBE") => of(Channels::Named, false),
            11 if is(b"UNSUBSCRIBE") => of(Channels::Named, true),
            10 if is(b"PSUBSCRIBE") => of(Channels::Patterns, false),
            12 if is(b"PUNSUBSCRIBE") => of(Channels::Patterns, true),
            10 if is(b"SSUBSCRIBE") => of(Channels::Shards, false),
            12 if is(b"SUNSUBSCRIBE") => of(Channels::Shards, true),
            _ => None,
        }
    }
}

/// Words that may stand after a container's name.
const SUBCOMMANDS: &str = "
    ACK ADDSLOTS ADDSLOTSRANGE BUMPEPOCH CACHING CAPA CAT CHANNELS CKQUORUM CONSUMERS COUNT
    COUNT-FAILURE-REPORTS COUNTKEYSINSLOT CREATE CREATECONSUMER DEBUG DELCONSUMER DELETE DELSLOTS
    DELSLOTSRANGE DELUSER DESTROY DOCS DOCTOR DRYRUN DUMP ENCODING EXISTS FAILOVER FLUSH
    FLUSHCONFIG FLUSHSLOTS FORGET FREQ GENPASS GET GET-MASTER-ADDR-BY-NAME GETACK GETKEYS
    GETKEYSANDFLAGS GETKEYSINSLOT GETNAME GETREDIR GETUSER GRAPH GROUPS HELP HISTOGRAM HISTORY ID
    IDLETIME INFO IP-ADDRESS KEYSLOT KILL LATEST LEN LINKS LIST LISTENING-PORT LOAD LOADEX LOG
    MALLOC-STATS MASTER MASTERS MEET MONITOR MYID MYSHARDID NO-EVICT NO-TOUCH NODES NUMPAT NUMSUB
    OBJECT PAUSE PURGE RDB-ONLY REFCOUNT REMOVE REPLICAS REPLICATE REPLY RESET RESETSTAT RESTORE
    REWRITE SAVE SENTINELS SET SET-CONFIG-EPOCH SETID SETINFO SETNAME SETSLOT SETUSER
    SHARDCHANNELS SHARDNUMSUB SHARDS SLAVES SLOT-STATS SLOTS STATS STREAM TRACKING TRACKINGINFO
    UNBLOCK UNLOAD UNPAUSE USAGE USERS WHOAMI
";

/// Reads a command; of one that is not whole, what was seen of it. `database`: of which it
/// is told, until its answer says more. `scratch`: memory to write in.
pub(super) fn describe(
    arguments: &Arguments,
    database: Option<u64>,
    reveal: Reveal,
    scratch: &mut String,
) -> Command {
    let (name, keys, known) = match arguments.get(0).and_then(known) {
        Some((name, keys)) => (SmolStr::new_static(name), Some(keys), true),
        None => {
            let name = arguments.upper(0).filter(|name| is_a_name(name));
            let keyed = name.as_deref().is_some_and(is_of_keyed_module);
            // A line of text need not be a command at all.
            let name = name.filter(|_| !arguments.inline);
            // Of one that broke off before its name nothing is known at all.
            let hidden = if arguments.seen() > 0 { HIDDEN } else { "" };
            let name = name.unwrap_or(SmolStr::new_static(hidden));
            (name, keyed.then_some(Keys::Places(1, 1)), false)
        }
    };
    let has_subcommand = keys == Some(Keys::Subcommand);
    let subcommand = if has_subcommand { arguments.upper(1) } else { None };
    let subcommand = subcommand.filter(|word| SUBCOMMANDS.split_ascii_whitespace().any(|one| one == word));
    let shown = shown(&name, subcommand.as_deref(), keys.unwrap_or(Keys::None), arguments);
    let operation = match &subcommand {
        Some(subcommand) => format_smolstr!("{name} {subcommand}"),
        None => name.clone(),
    };
    let target = target(&shown, arguments, scratch);
    let holds_data = known && keys.is_some_and(Keys::are_of_data);
    // A key, or a field of a hash, or a script may name one.
    let names_one = |argument| names_password(&String::from_utf8_lossy(argument));
    let may_show = !reveal.is_empty()
        && holds_data
        && !(1..arguments.seen()).filter_map(|place| arguments.get(place)).any(names_one);
    let shows_values = may_show && reveal.has(Class::RedisValues);
    let sole_key = shown.keys.sole().filter(|_| target.as_deref().is_some_and(|target| target != REST));
    let mut revealed = false;
    let mut text = Text::new(scratch, TEXT_BYTES_MAX);
    text.push(&operation);
    for place in 1 + usize::from(subcommand.is_some())..arguments.seen() {
        let is_shown = shown.contains(place);
        match arguments.get(place).filter(|_| is_shown || shows_values) {
            // Most commands have one key: what is written of it is known already.
            Some(_) if sole_key == Some(place) => text.push(target.as_deref().unwrap_or(HIDDEN)),
            Some(argument) => {
                text.push_quoted(argument);
                revealed |= !is_shown;
            }
            None => text.push(HIDDEN),
        }
    }
    if arguments.seen() > 0 && arguments.total() > arguments.seen() as u64 {
        text.push(REST);
    }
    let text = SmolStr::new(text.text);
    let is_script = matches!(keys, Some(Keys::Counted(2))) && !name.starts_with('B');
    let by_name = is_script && !matches!(name.as_str(), "EVAL" | "EVAL_RO");
    let procedure = arguments.get(1).filter(|word| by_name && is_procedure(&operation, Some(word)));
    let effect = effect(&name, subcommand.as_deref(), keys, arguments);

    let memory_bytes = size_of::<Exchange>() + text.len() + target.as_ref().map_or(0, SmolStr::len);
    let mut exchange = Exchange::empty();
    // In the order of their names, in which they are kept.
    if let Some(database) = database {
        exchange.set(Attribute::DbNamespace, number(database));
    }
    exchange.set(Attribute::DbOperationName, operation.clone());
    exchange.set(Attribute::DbQueryText, text);
    if let Some(procedure) = procedure {
        exchange.set(Attribute::DbStoredProcedureName, quoted(procedure));
    }
    exchange.set(Attribute::DbSystemName, SmolStr::new_static(SYSTEM));
    exchange.operation = operation;
    exchange.target = target;
    if revealed {
        exchange.revealed.insert(Class::RedisValues);
    }
    let errors = Errors {
        are_known: known && !is_script,
        are_shown: may_show && reveal.has(Class::ErrorText),
        name_is_guess: !known && keys.is_none(),
    };
    Command { exchange, effect, errors, database, memory_bytes }
}

fn is_a_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.len() <= WORD_BYTES_MAX
        && word.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-'))
}

fn target(shown: &Shown, arguments: &Arguments, scratch: &mut String) -> Option<SmolStr> {
    let mut target = Text::new(scratch, TARGET_BYTES_MAX);
    for place in shown.keys.iter() {
        match arguments.get(place) {
            Some(key) => target.push_quoted(key),
            None if place < arguments.seen() => target.push(HIDDEN),
            None => {}
        }
    }
    (!target.text.is_empty()).then(|| SmolStr::new(target.text))
}

pub(super) fn reply_mode(arguments: &Arguments) -> Option<ReplyMode> {
    if arguments.total() != 3 {
        return None;
    }
    match arguments.upper(2)?.as_str() {
        "ON" => Some(ReplyMode::On),
        "OFF" => Some(ReplyMode::Off),
        "SKIP" => Some(ReplyMode::Skip),
        _ => None,
    }
}

fn effect(name: &str, subcommand: Option<&str>, keys: Option<Keys>, arguments: &Arguments) -> Effect {
    if !matches!(keys, Some(Keys::None | Keys::Subcommand | Keys::From(_))) {
        return Effect::None; // it is about data
    }
    if let Some(subscription) = Subscription::named(name.as_bytes()) {
        let channels = arguments.total().saturating_sub(1);
        return match (channels, subscription.ends) {
            (0, true) => Effect::Subscription(subscription, None),
            (0, false) => Effect::None, // an error
            _ => Effect::Subscription(subscription, Some(channels)),
        };
    }
    match (name, subcommand) {
        ("PING" | "QUIT", _) => Effect::Pong,
        ("MONITOR", _) => Effect::Monitor,
        ("SYNC" | "PSYNC", _) => Effect::Replicate,
        ("REPLCONF", Some("ACK")) => Effect::Acknowledge,
        ("SELECT", _) => Effect::Select(arguments.number(1)),
        ("HELLO", _) => Effect::Hello(arguments.number(1)),
        ("RESET", _) => Effect::Reset,
        ("MULTI", _) => Effect::Multi,
        ("EXEC", _) => Effect::Exec,
        ("DISCARD", _) => Effect::Discard,
        ("CLIENT", Some("REPLY")) => Effect::Reply(reply_mode(arguments)),
        _ => Effect::None,
    }
}

/// As the command line client shows it: in quotes, where it would not be one word.
pub(super) fn quoted(word: &[u8]) -> SmolStr {
    let mut text = String::new();
    push_quoted(&mut text, word);
    text.into()
}

fn push_quoted(text: &mut String, word: &[u8]) {
    match std::str::from_utf8(word) {
        Ok(word)
            if !word.is_empty() && word != HIDDEN && word.bytes().all(|byte| PLAIN[usize::from(byte)]) =>
        {
            text.push_str(word);
        }
        _ => {
            text.push('"');
            text.extend(word.iter().flat_map(|byte| byte.escape_ascii()).map(char::from));
            text.push('"');
        }
    }
}

/// Which bytes of a text need no quotes, by their number.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        plain[byte as usize] = byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        byte += 1;
    }
    plain
};

/// Words, as far as there is room.
struct Text<'a> {
    text: &'a mut String,
    bytes_max: usize,
    full: bool,
}

impl<'a> Text<'a> {
    /// Begins with nothing, whatever stood in `text`.
    fn new(text: &'a mut String, bytes_max: usize) -> Self {
        text.clear();
        Self { text, bytes_max, full: false }
    }

    fn push(&mut self, word: &str) {
        self.push_by(|text| text.push_str(word));
    }

    fn push_quoted(&mut self, word: &[u8]) {
        self.push_by(|text| push_quoted(text, word));
    }

    fn push_by(&mut self, push: impl FnOnce(&mut String)) {
        if self.full {
            return;
        }
        let before = self.text.len();
        if before > 0 {
            self.text.push(' ');
        }
        let start = self.text.len();
        push(self.text);
        let word_bytes = self.text.len() - start;
        self.full = before + word_bytes + REST.len() + 2 > self.bytes_max;
        if self.full {
            self.text.truncate(start);
            self.text.push_str(REST);
        }
    }
}
