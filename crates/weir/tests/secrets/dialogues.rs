//! What is said, with a secret wherever there is place for one.
//!
//! In the texts `{never}` stands for what is shown under no circumstances, and
//! `{sql}`, `{parameter}`, `{value}`, `{query}` and `{error}` for what a class
//! of `--reveal` shows.

mod http2;
mod mysql;

use super::capture::Turn;

pub(crate) struct Dialogue {
    pub(crate) port: u16,
    make: fn() -> Vec<Turn>,
}

impl Dialogue {
    pub(crate) fn turns(&self) -> Vec<Turn> {
        (self.make)()
    }
}

pub(crate) const DIALOGUES: &[Dialogue] = &[
    Dialogue { port: 80, make: http },
    Dialogue { port: 80, make: http_unusual },
    Dialogue { port: 3128, make: http_proxy },
    Dialogue { port: 80, make: websocket },
    Dialogue { port: 80, make: http2::requests },
    Dialogue { port: 50051, make: http2::calls },
    Dialogue { port: 80, make: http2::upgrade },
    Dialogue { port: 25, make: smtp },
    Dialogue { port: 6379, make: redis },
    Dialogue { port: 6379, make: redis_inline },
    Dialogue { port: 5432, make: postgresql },
    Dialogue { port: 5432, make: postgresql_extended },
    Dialogue { port: 5432, make: postgresql_copy },
    Dialogue { port: 3306, make: mysql::queries },
    Dialogue { port: 3306, make: mysql::executions },
];

pub(crate) const CLASSES: [&str; 5] =
    ["sql-literals", "parameters", "redis-values", "query-strings", "error-text"];

/// Words of letters that stand beside each other in no other word.
pub(crate) struct Secrets;

impl Secrets {
    /// The only ones in them.
    pub(crate) const LETTERS: &[u8] = b"jkqvwxz";
    pub(crate) const NEVER: &str = "zqxjkvwzzxqjvkww";

    pub(crate) fn of(class: &str) -> &'static str {
        match class {
            "sql-literals" => "qqzvxkjwqvzjxwkq",
            "parameters" => "xxwqzkvjxwzqvjkx",
            "redis-values" => "vvjzwxqkvjwzqxkv",
            "query-strings" => "kkxzjqwvkxjzqvwk",
            "error-text" => "jjkqvzxwjkvqzwxj",
            _ => unreachable!("there is no class {class}"),
        }
    }
}

fn planted(text: &str) -> Vec<u8> {
    let text = text
        .replace("{never}", Secrets::NEVER)
        .replace("{sql}", Secrets::of("sql-literals"))
        .replace("{parameter}", Secrets::of("parameters"))
        .replace("{value}", Secrets::of("redis-values"))
        .replace("{query}", Secrets::of("query-strings"))
        .replace("{error}", Secrets::of("error-text"));
    text.into_bytes()
}

fn ask(text: &str) -> Turn {
    (true, planted(text))
}

fn answer(text: &str) -> Turn {
    (false, planted(text))
}

fn http() -> Vec<Turn> {
    vec![
        ask("POST /login?user=bob&password={never}&pa%73swd={never}&key={query} HTTP/1.1\r\n\
             Host: bob:{never}@shop:80\r\nAuthorization: Basic {never}\r\nCookie: a=b; sid={never}\r\n\
             X-Api-Key: {never}\r\nX-Auth-Token: {never}\r\nReferer: http://shop/?token={never}\r\n\
             Content-Length: 25\r\n\r\npassword={never}"),
        answer(
            "HTTP/1.1 302 Found\r\nSet-Cookie: sid={never}; HttpOnly\r\nLocation: /cb?code={never}\r\n\
             WWW-Authenticate: Digest nonce=\"{never}\"\r\nContent-Length: 16\r\n\r\n{never}",
        ),
        ask(
            "GET /a;jsessionid={query}?client_secret={never}&access_token={never}&code={query}#x HTTP/1.1\r\n\
             Host: shop\r\nAuthorization: Bearer {never}\r\n\r\n",
        ),
        answer(
            "HTTP/1.1 403 no token={never} for '{never}'\r\nTransfer-Encoding: chunked\r\nTrailer: X-Key\r\n\r\n\
                10;e={never}\r\n{never}\r\n0\r\nX-Key: {never}\r\n\r\n",
        ),
        ask("GET /to/http://bob:{never}@shop/reset-password/{never}0?u=http%3A%2F%2Fbob%3A{never}%40shop&\
             next=%2Fcb%3Ftoken%3D{never}&data={\"password\":\"{never}\"}&at=%2Fcb%3Fcode%3D{query} HTTP/1.1\r\n\
             Host: shop\r\n\r\n"),
        answer("HTTP/1.1 204 No Content\r\n\r\n"),
        ask("GET /sessions/{query}0/eyJhbGciOiJIUzI1.{never} HTTP/1.1\r\nHost: shop\r\n\r\n"),
        answer("HTTP/1.1 204 No Content\r\n\r\n"),
    ]
}

/// Heads that the strict reader refuses.
fn http_unusual() -> Vec<Turn> {
    let long = "a".repeat(9_000);
    vec![
        ask("GET /b?password={never} HTTP/1.1\r\nHost: shop\r\nAuthorization: Basic\r\n {never}\r\n\
             Cookie : sid={never}\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\n {never}\r\nContent-Length: 0\r\n\r\n"),
        ask(&format!(
            "GET http://{{never}}{long}:{{never}}@shop/ HTTP/1.1\r\nHost: {{never}}{long}@shop\r\n\r\n"
        )),
        answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    ]
}

fn http_proxy() -> Vec<Turn> {
    vec![
        ask(
            "GET http://bob:{never}@shop/a?sig={query} HTTP/1.1\r\nProxy-Authorization: Basic {never}\r\n\r\n",
        ),
        answer(
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm={never}\r\n\
                Content-Length: 0\r\n\r\n",
        ),
        ask("CONNECT bob:{never}@shop:443 HTTP/1.1\r\nProxy-Authorization: Basic {never}\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\n\r\n"),
        ask("GET /?password={never} HTTP/1.1\r\nCookie: {never}\r\n\r\n"),
        answer("HTTP/1.1 204 No Content\r\nSet-Cookie: {never}\r\n\r\n"),
    ]
}

/// Nothing of it is read but where TLS begins.
fn smtp() -> Vec<Turn> {
    vec![
        answer("220 mail {never}\r\n"),
        ask("EHLO {never}\r\n"),
        answer("250-mail\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
        ask("AUTH PLAIN {never}\r\n"),
        answer("235 {never}\r\n"),
        ask("STARTTLS\r\n"),
        answer("454 {never}\r\n"),
        ask("MAIL FROM:<{never}>\r\n"),
    ]
}

fn websocket() -> Vec<Turn> {
    let frame = |opcode: u8| [&[0x80 | opcode, 16][..], Secrets::NEVER.as_bytes()].concat();
    vec![
        ask("GET /ws?secret={never} HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {never}\r\nSec-WebSocket-Version: 13\r\n\r\n"),
        answer(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: {never}\r\n\r\n",
        ),
        (false, frame(1)),
        (false, frame(9)),
        (false, [&[0x88, 18, 3, 0xe8][..], Secrets::NEVER.as_bytes()].concat()),
    ]
}

/// A command as arguments with their lengths.
fn command(words: &str) -> Turn {
    let words: Vec<Vec<u8>> = words.split(' ').map(planted).collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(b"\r\n");
    }
    (true, bytes)
}

fn redis() -> Vec<Turn> {
    vec![
        command("HELLO 3 AUTH bob {never} SETNAME {never}"),
        answer("%1\r\n$6\r\nserver\r\n$16\r\n{never}\r\n"),
        command("AUTH {never}"),
        answer("-WRONGPASS invalid '{never}'\r\n"),
        command("AUTH bob {never}"),
        answer("+OK\r\n"),
        command("CONFIG SET requirepass {never} masterauth {never}"),
        answer("+OK\r\n"),
        command("CONFIG GET *pass*"),
        answer("*2\r\n$11\r\nrequirepass\r\n$16\r\n{never}\r\n"),
        command("ACL SETUSER bob on >{never} #{never} ~{never}"),
        answer("+OK\r\n"),
        command("MIGRATE other 6379 user:1 0 1000 AUTH2 bob {never}"),
        answer("-IOERR error or timeout writing to target instance\r\n"),
        command("SENTINEL SET main auth-pass {never}"),
        answer("-ERR unknown command 'SENTINEL', with args beginning with: 'SET' '{never}'\r\n"),
        command("SOMETHING {never} {never}"),
        answer("-ERR unknown command 'SOMETHING', with args beginning with: '{never}'\r\n"),
        command("SET user:1 {value} EX 10"),
        answer("+OK\r\n"),
        command("SET user:1:password {never}"),
        answer("+OK\r\n"),
        command("GET user:1"),
        answer("$16\r\n{never}\r\n"),
        command("INCRBY user:1 {value}"),
        answer("-ERR value '{error}' is not an integer\r\n"),
        command("EVAL {value} 1 user:1 {value}"),
        answer("-ERR {error} happened in a script\r\n"),
        // A password, typed where a command belongs.
        command("{never}"),
        answer("-ERR unknown command '{never}', with args beginning with: \r\n"),
        command("HSET user:2 name bob pass_word {never}"),
        answer("-ERR '{never}' is wrong\r\n"),
        command("PUBLISH news {value}"),
        answer(":1\r\n>3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$16\r\n{never}\r\n"),
    ]
}

fn redis_inline() -> Vec<Turn> {
    vec![
        ask("AUTH {never}\r\n"),
        answer("+OK\r\n"),
        ask("SET user:1 \"{value} {value}\"\r\n"),
        answer("+OK\r\n"),
        ask("SOMETHING {never}\r\n"),
        answer("-ERR unknown command '{never}'\r\n"),
        ask("GET user:1\r\n"),
        answer("$16\r\n{never}\r\n"),
    ]
}

/// A message of PostgreSQL; its text ends each `|` with a zero.
fn message(client: bool, kind: u8, text: &str) -> Turn {
    let body = planted(&text.replace('|', "\0"));
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(&body);
    (client, bytes)
}

fn startup() -> Vec<Turn> {
    let parameters = planted("user\0bob\0database\0shop\0options\0-c some.secret={never}\0\0");
    let mut bytes = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 3, 0, 0]);
    bytes.extend_from_slice(&parameters);
    vec![
        (true, bytes),
        message(false, b'R', "||\u{0}\u{5}{never}"),
        message(true, b'p', "md5{never}|"),
        message(false, b'R', "||\u{0}\u{a}SCRAM-SHA-256||"),
        message(true, b'p', "SCRAM-SHA-256|\u{0}\u{0}\u{0}\u{10}{never}"),
        message(false, b'R', "||\u{0}\u{c}v={never}"),
        joined(false, &[message(false, b'R', "||||"), message(false, b'K', "{never}"), ready()]),
    ]
}

fn ready() -> Turn {
    message(false, b'Z', "I")
}

fn joined(client: bool, turns: &[Turn]) -> Turn {
    (client, turns.iter().flat_map(|(_, bytes)| bytes.clone()).collect())
}

fn error(text: &str) -> Turn {
    message(
        false,
        b'E',
        &format!("SERROR|VERROR|C23505|M{text}|DKey (name)=({{never}}) exists.|q{{never}}||"),
    )
}

fn postgresql() -> Vec<Turn> {
    let mut turns = startup();
    turns.extend([
        message(true, b'Q', "SELECT name FROM users WHERE mail = '{sql}' -- {never}|"),
        joined(
            false,
            &[
                message(false, b'D', "\u{0}\u{1}\u{0}\u{0}\u{0}\u{10}{never}"),
                message(false, b'C', "SELECT 1|"),
                ready(),
            ],
        ),
        message(true, b'Q', "ALTER ROLE bob PASSWORD '{never}'|"),
        joined(false, &[error("syntax error at or near \"{never}\""), ready()]),
        message(true, b'Q', "INSERT INTO users (name, password) VALUES ('{never}', '{never}')|"),
        joined(false, &[error("bad value \"{never}\""), ready()]),
        message(true, b'Q', "CREATE USER MAPPING FOR bob SERVER x OPTIONS (user 'a', password '{never}')|"),
        joined(false, &[message(false, b'C', "CREATE USER MAPPING|"), ready()]),
        message(true, b'Q', "INSERT INTO orders VALUES ($${sql}$$, E'\\'{sql}', 1)|"),
        joined(
            false,
            &[
                message(false, b'N', "SNOTICE|VNOTICE|C00000|M{never}||"),
                error("duplicate key \"{error}\""),
                ready(),
            ],
        ),
        message(true, b'Q', "SELECT f('{sql}') -- it's a note\rSELECT 'a\n{sql}'|"),
        joined(false, &[message(false, b'E', "SERROR|VERROR|CP0001|Mno user {error}||"), ready()]),
    ]);
    turns
}

fn postgresql_extended() -> Vec<Turn> {
    let bound = "\u{0}\u{0}\u{0}\u{1}\u{0}\u{0}\u{0}\u{12}{parameter}";
    let bound = bound.replace('\u{12}', "\u{10}");
    let mut turns = startup();
    turns.extend([
        joined(
            true,
            &[
                message(true, b'P', "one|INSERT INTO orders VALUES ($1, '{sql}')|\u{0}\u{0}"),
                message(true, b'B', &format!("|one|{bound}\u{0}\u{0}")),
                message(true, b'E', "|\u{0}\u{0}\u{0}\u{0}"),
                message(true, b'S', ""),
            ],
        ),
        joined(
            false,
            &[
                message(false, b'1', ""),
                message(false, b'2', ""),
                message(false, b'C', "INSERT 0 1|"),
                ready(),
            ],
        ),
        joined(
            true,
            &[
                message(true, b'P', "two|UPDATE users SET password = $1|\u{0}\u{0}"),
                message(true, b'B', &format!("|two|{}\u{0}\u{0}", bound.replace("{parameter}", "{never}"))),
                message(true, b'E', "|\u{0}\u{0}\u{0}\u{0}"),
                message(true, b'S', ""),
            ],
        ),
        joined(false, &[message(false, b'1', ""), error("value too long: \"{never}\""), ready()]),
    ]);
    turns
}

fn postgresql_copy() -> Vec<Turn> {
    let mut turns = startup();
    turns.extend([
        message(true, b'Q', "COPY users FROM STDIN|"),
        message(false, b'G', "\u{0}\u{0}\u{1}\u{0}\u{0}"),
        joined(
            true,
            &[
                message(true, b'd', "{never}\t{never}\n"),
                message(true, b'd', "{never}\n"),
                message(true, b'c', ""),
            ],
        ),
        joined(
            false,
            &[message(false, b'A', "||\u{0}\u{1}news|{never}|"), message(false, b'C', "COPY 2|"), ready()],
        ),
    ]);
    turns
}
