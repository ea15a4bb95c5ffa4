//! Which arguments of a command may be shown, by their places.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use super::arguments::{ARGUMENTS_MAX, Arguments};
use super::command::reply_mode;

/// Where the keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    None,
    /// These places, both included.
    Places(usize, usize),
    /// From this place on.
    From(usize),
    AllButLast,
    /// Every second one.
    Pairs,
    /// As many as the number at this place says, after it.
    Counted(usize),
    /// The first one, and as many as the second one says.
    Stored,
    /// After the word STREAMS, which stands at this place or later: keys, then
    /// as many numbers.
    Streams(usize),
    Migrate,
    /// A container: the subcommand comes first.
    Subcommand,
}

impl Keys {
    /// Whether the command reads or writes data: what is no key is a value then,
    /// and no password.
    pub(super) fn are_of_data(self) -> bool {
        !matches!(self, Self::None | Self::Migrate | Self::Subcommand)
    }
}

/// The commands that servers know, by where their keys stand.
const COMMANDS: [(Keys, &str); 14] = [
    (
        Keys::Places(1, 1),
        "
            GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX APPEND STRLEN INCR DECR INCRBY DECRBY
            INCRBYFLOAT SETRANGE GETRANGE SUBSTR GETBIT SETBIT BITCOUNT BITPOS BITFIELD BITFIELD_RO DELEX
            DIGEST EXPIRE PEXPIRE EXPIREAT PEXPIREAT EXPIRETIME PEXPIRETIME TTL PTTL PERSIST TYPE DUMP
            RESTORE RESTORE-ASKING MOVE SORT SORT_RO LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LLEN LINDEX LSET
            LRANGE LREM LTRIM LINSERT LPOS SADD SREM SCARD SMEMBERS SISMEMBER SMISMEMBER SPOP SRANDMEMBER
            SSCAN ZADD ZREM ZCARD ZCOUNT ZSCORE ZMSCORE ZRANK ZREVRANK ZINCRBY ZRANGE ZREVRANGE
            ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZREVRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
            ZREMRANGEBYLEX ZLEXCOUNT ZPOPMIN ZPOPMAX ZRANDMEMBER ZSCAN HSET HGET HMSET HMGET HGETALL HDEL
            HLEN HEXISTS HKEYS HVALS HSETNX HINCRBY HINCRBYFLOAT HSTRLEN HSCAN HRANDFIELD HEXPIRE HPEXPIRE
            HEXPIREAT HPEXPIREAT HTTL HPTTL HPERSIST HEXPIRETIME HPEXPIRETIME HGETDEL HGETEX HSETEX PFADD
            GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO
            GEOSEARCH XADD XLEN XRANGE XREVRANGE XDEL XDELEX XTRIM XACK XACKDEL XCLAIM XAUTOCLAIM XPENDING
            XSETID PUBLISH SPUBLISH VADD VCARD VDIM VEMB VGETATTR VINFO VLINKS VRANDMEMBER VREM VSETATTR
            VSIM KEYS
        ",
    ),
    (
        Keys::Places(1, 2),
        "
            RENAME RENAMENX SMOVE RPOPLPUSH BRPOPLPUSH LMOVE BLMOVE COPY LCS ZRANGESTORE GEOSEARCHSTORE
        ",
    ),
    (
        Keys::From(1),
        "
            DEL UNLINK EXISTS TOUCH MGET SINTER SUNION SDIFF SINTERSTORE SUNIONSTORE SDIFFSTORE PFCOUNT
            PFMERGE WATCH SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE
        ",
    ),
    (Keys::From(2), "BITOP"),
    (Keys::AllButLast, "BLPOP BRPOP BZPOPMIN BZPOPMAX"),
    (Keys::Pairs, "MSET MSETNX"),
    (Keys::Counted(1), "ZUNION ZINTER ZDIFF SINTERCARD ZINTERCARD LMPOP ZMPOP MSETEX"),
    (Keys::Counted(2), "BLMPOP BZMPOP EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO"),
    (Keys::Stored, "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE"),
    (Keys::Streams(1), "XREAD"),
    (Keys::Streams(4), "XREADGROUP"),
    (Keys::Migrate, "MIGRATE"),
    (
        Keys::Subcommand,
        "
            CLIENT CONFIG ACL OBJECT MEMORY XINFO XGROUP SCRIPT FUNCTION PUBSUB CLUSTER COMMAND DEBUG
            LATENCY SLOWLOG MODULE SENTINEL REPLCONF
        ",
    ),
    (
        Keys::None,
        "
            AUTH HELLO PING ECHO QUIT RESET SELECT SWAPDB INFO DBSIZE FLUSHALL FLUSHDB SAVE BGSAVE
            BGREWRITEAOF LASTSAVE SHUTDOWN REPLICAOF SLAVEOF FAILOVER ROLE SYNC PSYNC MONITOR MULTI EXEC
            DISCARD UNWATCH WAIT WAITAOF RANDOMKEY SCAN TIME LOLWUT READONLY READWRITE ASKING PFSELFTEST
            PFDEBUG
        ",
    ),
];
/// The longest of their names.
const NAME_BYTES_MAX: usize = 24;

/// A name in numbers: faster to look up than one in bytes.
type Packed = (u64, u64, u64);

/// The same by name, because every command is looked up.
static KEYS: LazyLock<HashMap<Packed, (&str, Keys), RandomState>> = LazyLock::new(|| {
    let names = |(keys, names): (Keys, &'static str)| {
        names.split_ascii_whitespace().filter_map(move |name| Some((packed(name.as_bytes())?, (name, keys))))
    };
    COMMANDS.into_iter().flat_map(names).collect()
});

/// In capital letters. Zeroes may be missing in it.
fn packed(name: &[u8]) -> Option<Packed> {
    let pack = |bytes: &[u8]| {
        bytes.iter().fold(0, |packed, byte| packed << 8 | u64::from(byte.to_ascii_uppercase()))
    };
    let mut parts = name.chunks(8).map(pack);
    let mut next = || parts.next().unwrap_or_default();
    (name.len() <= NAME_BYTES_MAX).then(|| (next(), next(), next()))
}

/// The name of a command that servers know, in capital letters, and where its keys
/// stand. It may be given in any letters.
pub(super) fn known(name: &[u8]) -> Option<(&'static str, Keys)> {
    KEYS.get(&packed(name)?).copied().filter(|(known, _)| known.len() == name.len())
}

/// Whether commands of this module begin with a key (or the name of an index).
pub(super) fn is_of_keyed_module(name: &str) -> bool {
    let named_otherwise = [
        "JSON.MSET",
        "JSON.MGET",
        "TS.MADD",
        "TS.MGET",
        "TS.MRANGE",
        "TS.MREVRANGE",
        "TS.QUERYINDEX",
        "FT._LIST",
        "FT.CONFIG",
    ];
    let modules = ["JSON.", "TS.", "BF.", "CF.", "CMS.", "TOPK.", "TDIGEST.", "FT."];
    modules.iter().any(|module| name.starts_with(module)) && !named_otherwise.contains(&name)
}

/// Some of a command's arguments.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places(u32);

const _: () = assert!(ARGUMENTS_MAX <= u32::BITS as usize);

impl Places {
    fn one(place: usize) -> Self {
        std::iter::once(place).collect()
    }

    pub(super) fn contains(self, place: usize) -> bool {
        u32::try_from(place)
            .ok()
            .and_then(|place| 1_u32.checked_shl(place))
            .is_some_and(|bit| self.0 & bit != 0)
    }

    /// The only one, if there is only one.
    pub(super) fn sole(self) -> Option<usize> {
        self.0.is_power_of_two().then(|| self.0.trailing_zeros() as usize)
    }

    /// In their order.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let place = (left != 0).then(|| left.trailing_zeros() as usize);
            left &= left.wrapping_sub(1);
            place
        })
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let bit = |place| u32::try_from(place).ok().and_then(|place| 1_u32.checked_shl(place)).unwrap_or(0);
        Self(places.into_iter().fold(0, |all, place| all | bit(place)))
    }
}

/// Which arguments are shown.
pub(super) struct Shown {
    /// The keys among them.
    pub(super) keys: Places,
    /// Not keys, and not secret either.
    others: Places,
}

impl Shown {
    pub(super) fn contains(&self, place: usize) -> bool {
        self.keys.contains(place) || self.others.contains(place)
    }
}

pub(super) fn shown(name: &str, subcommand: Option<&str>, keys: Keys, arguments: &Arguments) -> Shown {
    let seen = arguments.seen();
    let total = usize::try_from(arguments.total()).unwrap_or(usize::MAX);
    let counted = |at: usize| {
        let count = usize::try_from(arguments.number(at).unwrap_or(0)).unwrap_or(usize::MAX);
        at + 1..at.saturating_add(1).saturating_add(count).min(seen)
    };
    let keys: Places = match keys {
        Keys::None => Places::default(),
        Keys::Places(first, last) => (first..=last).collect(),
        Keys::From(first) => (first..seen).collect(),
        Keys::AllButLast => (1..seen.min(total.saturating_sub(1))).collect(),
        Keys::Pairs => (1..seen).step_by(2).collect(),
        Keys::Counted(at) => counted(at).collect(),
        Keys::Stored => std::iter::once(1).chain(counted(2)).collect(),
        Keys::Streams(from) => match (from..seen).find(|at| arguments.is_word(*at, "STREAMS")) {
            Some(word) => (word + 1..seen.min(word + 1 + total.saturating_sub(word + 1) / 2)).collect(),
            None => Places::default(),
        },
        Keys::Migrate => migrated(arguments),
        Keys::Subcommand => match (name, subcommand) {
            ("OBJECT" | "XINFO" | "XGROUP", Some(_))
            | ("MEMORY", Some("USAGE"))
            | ("DEBUG", Some("OBJECT")) => Places::one(2),
            _ => Places::default(),
        },
    };
    let is_number = |at: usize| arguments.number(at).is_some_and(|number| number < 1_000_000);
    let others = match (name, subcommand) {
        ("SELECT" | "HELLO", None) if is_number(1) => Places::one(1),
        ("EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO", None) if is_procedure(name, arguments.get(1)) => {
            Places::one(1)
        }
        ("CLIENT", Some("REPLY")) if reply_mode(arguments).is_some() => Places::one(2),
        ("CONFIG", Some("GET")) if is_parameter(arguments.get(2)) => Places::one(2),
        ("CONFIG", Some("SET")) if total > 3 && is_parameter(arguments.get(2)) => Places::one(2),
        _ => Places::default(),
    };
    Shown { keys, others }
}

/// `MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password] [KEYS key ...]`
fn migrated(arguments: &Arguments) -> Places {
    let first: Option<usize> = arguments.get(3).filter(|key| !key.is_empty()).map(|_| 3);
    let mut rest = 0..0;
    let mut place = 6;
    while place < arguments.seen() {
        match arguments.upper(place).as_deref() {
            Some("COPY" | "REPLACE") => place += 1,
            Some("AUTH") => place += 2,
            Some("AUTH2") => place += 3,
            Some("KEYS") => {
                rest = place + 1..arguments.seen();
                break;
            }
            _ => break,
        }
    }
    first.into_iter().chain(rest).collect()
}

/// Whether this is what a parameter of the server is called like.
fn is_parameter(word: Option<&[u8]>) -> bool {
    word.is_some_and(|word| {
        (3..=48).contains(&word.len()) && word.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
    })
}

/// Whether this is a script's digest, or what a function may be called.
pub(super) fn is_procedure(command: &str, word: Option<&[u8]>) -> bool {
    word.is_some_and(|word| match command {
        "EVALSHA" | "EVALSHA_RO" => word.len() == 40 && word.iter().all(u8::is_ascii_hexdigit),
        _ => word.len() <= 64 && word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'),
    })
}
