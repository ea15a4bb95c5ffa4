//! What is said, again and again.

/// Whether the client speaks, and what.
pub(super) type Turn = (bool, Vec<u8>);

/// What is measured.
#[derive(Default)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) udp: bool,
    /// Said once.
    pub(super) opening: Vec<Turn>,
    /// Said in each round.
    pub(super) turns: Vec<Turn>,
    /// Requests in a round.
    pub(super) requests: u32,
    /// Writes a number of its own into what is said in a round.
    pub(super) numbered: Option<fn(&mut [u8], u32)>,
    /// The heads in a round, for httparse.
    pub(super) heads: Vec<Vec<u8>>,
    /// Whether httparse's time is what the target is about.
    pub(super) is_compared: bool,
    pub(super) target_ns: Option<f64>,
}

pub(super) fn loads() -> Vec<Load> {
    vec![
        http("HTTP/1.1, small heads, 612 bytes of body", SMALL_REQUEST, &small_response(612), 612),
        http(
            "HTTP/1.1, heads of a browser, 16 kB of body",
            BROWSER_REQUEST,
            &browser_response(16_384),
            16_384,
        ),
        Load {
            is_compared: false,
            ..http("HTTP/1.1, small heads, 1 MB of body", SMALL_REQUEST, &small_response(1 << 20), 1 << 20)
        },
        http2(),
        redis("Redis, GET of 3 bytes", 1, &["GET", "key:000000001"], b"$3\r\nabc\r\n"),
        Load {
            target_ns: Some(100.0),
            ..redis("Redis, GET of 3 bytes, pipelines of 16", 16, &["GET", "key:000000001"], b"$3\r\nabc\r\n")
        },
        redis(
            "Redis, SET of 1 kB, pipelines of 16",
            16,
            &["SET", "key:000000001", &"x".repeat(1024)],
            b"+OK\r\n",
        ),
        postgresql(),
        postgresql_prepared(),
        mysql(),
        dns(),
    ]
}

const SMALL_REQUEST: &str = "GET /orders/17 HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// As nginx answers.
fn small_response(body: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/html\r\n\
         Content-Length: {body}\r\nLast-Modified: Sun, 01 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\
         ETag: \"6905f3c0-264\"\r\nAccept-Ranges: bytes\r\n\r\n"
    )
}

const BROWSER_REQUEST: &str = "GET /catalogue/winter/boots?size=42&colour=brown&sort=price HTTP/1.1\r\n\
    Host: shop.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.test/catalogue/winter\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; consent=yes; basket=3a7f; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

fn browser_response(body: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Length: {body}\r\nConnection: keep-alive\r\n\
         Cache-Control: private, max-age=0, must-revalidate\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n\
         Strict-Transport-Security: max-age=63072000; includeSubDomains\r\nX-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: SAMEORIGIN\r\nSet-Cookie: basket=3a80; Path=/; HttpOnly; SameSite=Lax\r\n\
         X-Request-Id: 6d0f1c2a-7b7e-4a51-9b0e-0d7c9f0a1b2c\r\n\r\n"
    )
}

fn http(name: &'static str, request: &str, response: &str, body: usize) -> Load {
    let whole = [response.as_bytes(), &vec![b'x'; body]].concat();
    Load {
        name,
        port: 80,
        turns: vec![(true, request.into()), (false, whole)],
        requests: 1,
        heads: vec![request.into(), response.into()],
        is_compared: true,
        ..Load::default()
    }
}

fn http2() -> Load {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    };
    let (settings, acknowledged) = (frame(4, 0, 0, &[]), frame(4, 1, 0, &[]));
    // :method GET, :scheme https, :authority and :path as they are.
    let mut asked = vec![0x82, 0x87, 0x01, 9];
    asked.extend_from_slice(b"shop.test");
    asked.extend_from_slice(&[0x04, 10]);
    asked.extend_from_slice(b"/orders/17");
    // :status 200, content-length 612.
    let mut answered = vec![0x88, 0x0f, 0x0d, 3];
    answered.extend_from_slice(b"612");
    Load {
        name: "HTTP/2, small heads, 612 bytes of body",
        port: 80,
        opening: vec![
            (true, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()),
            (false, [settings.as_slice(), &acknowledged].concat()),
            (true, acknowledged),
        ],
        turns: vec![
            (true, frame(1, 5, 0, &asked)),
            (false, [frame(1, 4, 0, &answered), frame(0, 1, 0, &[b'x'; 612])].concat()),
        ],
        requests: 1,
        numbered: Some(|bytes, stream| {
            // The number of its stream in every frame.
            let mut rest = bytes;
            while let Some((head, after)) = rest.split_first_chunk_mut::<9>() {
                head[5..].copy_from_slice(&stream.to_be_bytes());
                let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
                rest = after.get_mut(length..).unwrap_or_default();
            }
        }),
        ..Load::default()
    }
}

fn redis(name: &'static str, pipeline: u32, words: &[&str], reply: &[u8]) -> Load {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    let times = pipeline as usize;
    Load {
        name,
        port: 6379,
        turns: vec![(true, command.repeat(times).into()), (false, reply.repeat(times))],
        requests: pipeline,
        ..Load::default()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn postgresql_opening() -> Vec<Turn> {
    let parameters = b"user\0bob\0database\0shop\0\0";
    let startup =
        [&(parameters.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_slice()].concat();
    vec![(true, startup), (false, [message(b'R', &[0; 4]), message(b'Z', b"I")].concat())]
}

/// Ten rows of a few columns.
fn rows() -> Vec<u8> {
    let row = [&[0, 2, 0, 0, 0, 4][..], b"1234", &[0, 0, 0, 32], &[b'x'; 32]].concat();
    message(b'D', &row).repeat(10)
}

fn postgresql() -> Load {
    let sql = b"SELECT id, name FROM orders WHERE customer = 4711 AND state = 'open' ORDER BY id LIMIT 10\0";
    let answer = [rows(), message(b'C', b"SELECT 10\0"), message(b'Z', b"I")].concat();
    Load {
        name: "PostgreSQL, a query with 10 rows",
        port: 5432,
        opening: postgresql_opening(),
        turns: vec![(true, message(b'Q', sql)), (false, answer)],
        requests: 1,
        ..Load::default()
    }
}

fn postgresql_prepared() -> Load {
    let prepare =
        message(b'P', b"one\0SELECT id, name FROM orders WHERE customer = $1 ORDER BY id LIMIT 10\0\0\0");
    let mut opening = postgresql_opening();
    opening.push((true, [prepare, message(b'S', b"")].concat()));
    opening.push((false, [message(b'1', b""), message(b'Z', b"I")].concat()));
    let bind = message(b'B', b"\0one\0\0\0\0\x01\0\0\0\x044711\0\0");
    Load {
        name: "PostgreSQL, a prepared statement with 10 rows",
        port: 5432,
        opening,
        turns: vec![
            (true, [bind, message(b'E', &[0; 5]), message(b'S', b"")].concat()),
            (
                false,
                [message(b'2', b""), rows(), message(b'C', b"SELECT 10\0"), message(b'Z', b"I")].concat(),
            ),
        ],
        requests: 1,
        ..Load::default()
    }
}

/// A packet of MySQL, with its number.
fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_le_bytes();
    [&length[..3], &[number], body].concat()
}

fn mysql() -> Load {
    const PLUGIN: &[u8] = b"mysql_native_password\0";
    // Protocol 4.1, authentication by plugin, no EOF packets.
    const CAPABILITIES: [u8; 4] = 0x0108_a201_u32.to_le_bytes();
    let [a, b, c, d] = CAPABILITIES;
    let greeting = [
        b"\x0a8.0.36\0".as_slice(),
        &[7, 0, 0, 0],
        b"12345678\0",
        &[a, b, 45, 2, 0, c, d, 21],
        &[0; 10],
        b"123456789012\0",
        PLUGIN,
    ]
    .concat();
    let login = [&CAPABILITIES[..], &[0, 0, 0, 1, 45], &[0; 23], b"bob\0\x14", &[7; 20], PLUGIN].concat();
    let ok = [0, 0, 0, 2, 0, 0, 0];
    let sql =
        b"\x03UPDATE orders SET state = 'paid', total = 17.50 WHERE id = 4711 AND state = 'open' LIMIT 1";
    Load {
        name: "MySQL, a statement that changes a row",
        port: 3306,
        opening: vec![(false, packet(0, &greeting)), (true, packet(1, &login)), (false, packet(2, &ok))],
        turns: vec![(true, packet(0, sql)), (false, packet(1, &[0, 1, 0, 2, 0, 0, 0]))],
        requests: 1,
        ..Load::default()
    }
}

fn dns() -> Load {
    let question = b"\x04shop\x04test\x00\x00\x01\x00\x01";
    let asked = [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], question].concat();
    let answered = [
        &[0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
        question,
        &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 7],
    ]
    .concat();
    Load {
        name: "DNS over UDP",
        port: 53,
        udp: true,
        turns: vec![(true, asked), (false, answered)],
        requests: 1,
        ..Load::default()
    }
}
