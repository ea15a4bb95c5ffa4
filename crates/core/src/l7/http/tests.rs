use super::*;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::record::AttributeValue;

const TO_SERVER: Direction = Direction::ToServer;
const TO_CLIENT: Direction = Direction::ToClient;

/// Many kinds of messages, by a client that waits for each answer.
fn waiting() -> Vec<Turn> {
    vec![
        ask("GET /1 HTTP/1.1\r\nHost: shop\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ask("POST /2 HTTP/1.1\r\nContent-Length: 7\r\n\r\na=b&c=d"),
        answer(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        ),
        ask("HEAD /3 HTTP/1.1\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        ask("PUT /4 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        answer("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"),
        ask("POST /5 HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"),
        answer("HTTP/1.1 100 Continue\r\n\r\n"),
        ask("abc"),
        answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ask("\r\nGET /6 HTTP/1.1\r\nHost: a\r\n\r\n"),
        answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"),
        ask("GET /7 HTTP/1.1\r\nHost: a\r\n\r\n"),
        answer(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
        ),
        ask("GET /8 HTTP/1.0\r\n\r\n"),
        answer("HTTP/1.0 200 OK\r\n\r\nuntil the end"),
    ]
}

/// Requests in batches, as with pipelining.
fn pipelined() -> Vec<Turn> {
    let mut turns = Vec::new();
    for batch in 0..4 {
        let numbers = batch * 3..batch * 3 + 3;
        let asks: String =
            numbers.clone().map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        let answers = numbers.map(|number| {
            let body = "x".repeat(number * 30);
            format!("HTTP/1.1 {} OK\r\nContent-Length: {}\r\n\r\n{body}", 400 + number, body.len())
        });
        turns.push(ask(asks));
        turns.push(answer(answers.collect::<String>()));
    }
    turns
}

fn lines(exchanges: &[Exchange]) -> Vec<String> {
    let size = |exchange: &Exchange, attribute| match exchange.attributes.get(attribute) {
        Some(AttributeValue::Number(number)) => number.to_string(),
        _ => "-".into(),
    };
    exchanges
        .iter()
        .map(|one| {
            let anomalies = match one.attributes.get(Attribute::Anomalies) {
                Some(AttributeValue::Texts(all)) => format!(" ({})", all.join(", ")),
                _ => String::new(),
            };
            format!(
                "{} {} {} {}/{} {}{anomalies}",
                if one.request.is_some() { one.operation.as_str() } else { "?" },
                one.target.as_deref().unwrap_or("-"),
                one.status.as_deref().unwrap_or("-"),
                size(one, Attribute::HttpRequestBodySize),
                size(one, Attribute::HttpResponseBodySize),
                one.capture.name(),
            )
        })
        .collect()
}

#[track_caller]
fn assert_lines(turns: &[Turn], expected: &[&str]) {
    assert_eq!(lines(&play(&PROTOCOL, turns)), expected);
}

#[test]
fn bodies_are_counted_and_every_answer_finds_its_request() {
    assert_lines(
        &waiting(),
        &[
            "GET /1 200 -/5 complete",
            "POST /2 201 7/8 complete",
            "HEAD /3 200 -/0 complete",
            "PUT /4 204 3/0 complete",
            "POST /5 404 3/0 complete",
            "GET /6 304 -/0 complete",
            "GET /7 503 -/2 complete",
            "GET /8 200 -/13 complete",
        ],
    );
}

#[test]
fn every_property_holds_for_a_client_that_waits() {
    harness::check(&PROTOCOL, &waiting());
}

#[test]
fn every_property_holds_with_pipelining() {
    harness::check(&PROTOCOL, &pipelined());
}

#[test]
fn time_grows_with_the_length_only() {
    harness::check_linear(&PROTOCOL, |length| {
        let headers = "X-Some: header of usual length\r\n".repeat(length / 32);
        vec![ask(format!("GET / HTTP/1.1\r\n{headers}\r\n")), answer(format!("HTTP/1.1 200 OK\r\n{headers}"))]
    });
    harness::check_linear(&PROTOCOL, |length| {
        vec![
            ask("GET / HTTP/1.1\r\n\r\n"),
            answer(
                ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &"1\r\nx\r\n".repeat(length / 6)]
                    .concat(),
            ),
        ]
    });
}

#[test]
fn sizes_are_of_whole_messages() {
    let exchanges = play(&PROTOCOL, &waiting());
    let turns = waiting();
    let sent = |index: usize| turns[index].bytes().len() as u64;
    assert_eq!(exchanges[1].request.unwrap().bytes, sent(2));
    assert_eq!(exchanges[1].response.unwrap().bytes, sent(3));
    assert_eq!(exchanges[4].request.unwrap().bytes, sent(8) + sent(10));
    assert_eq!(exchanges[4].response.unwrap().bytes, sent(9) + sent(11));
}

#[test]
fn latency_is_that_of_the_final_answer() {
    let mut played = Played::new(&PROTOCOL);
    played.at(10).data(TO_SERVER, b"GET / HTT");
    played.at(20).data(TO_SERVER, b"P/1.1\r\n\r\n");
    played.at(30).data(TO_CLIENT, b"HTTP/1.1 103 Early Hints\r\n\r\n");
    played.at(50).data(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    played.at(80).data(TO_CLIENT, b"llo");
    let exchange = &played.exchanges[0];
    assert_eq!(exchange.request.unwrap(), Part { first_ns: 10, last_ns: 20, bytes: 18 });
    assert_eq!(exchange.response.unwrap(), Part { first_ns: 50, last_ns: 80, bytes: 28 + 38 + 5 });
}

#[test]
fn a_hole_in_a_body_keeps_everything_in_step() {
    let mut played = Played::new(&PROTOCOL);
    played
        .data(TO_SERVER, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        .data(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        .gap(TO_CLIENT, 10, Gap::Lost)
        .data(TO_CLIENT, b"abc")
        .gap(TO_CLIENT, 980, Gap::Lost)
        .data(TO_CLIENT, b"endofitHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        .finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /1 200 -/1000 gap", "GET /2 404 -/0 complete"]);
}

#[test]
fn after_a_hole_in_a_head_nothing_is_guessed_and_a_waiting_client_is_followed_again() {
    let mut played = Played::new(&PROTOCOL);
    let exchange = |number: u32| {
        (
            format!("GET /{number} HTTP/1.1\r\n\r\n"),
            format!("HTTP/1.1 20{number} OK\r\nContent-Length: 0\r\n\r\n"),
        )
    };
    for number in 1..6 {
        let (asked, answered) = exchange(number);
        played.data(TO_SERVER, asked.as_bytes());
        if number == 3 {
            played.gap(TO_CLIENT, answered.len() as u64, Gap::Lost);
        } else {
            played.data(TO_CLIENT, answered.as_bytes());
        }
    }
    played.finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        [
            "GET /1 201 -/0 complete",
            "GET /2 202 -/0 complete",
            "GET /3 - -/- gap",
            "GET /4 204 -/0 gap",
            "GET /5 205 -/0 gap"
        ]
    );
}

#[test]
fn heads_that_are_cut_off_say_what_they_say() {
    let mut played = Played::new(&PROTOCOL);
    for number in 1..3 {
        played
            .data(TO_SERVER, format!("GET /{number} HTTP/1.1\r\nHost: shop\r\nUser-").as_bytes())
            .gap(TO_SERVER, 400, Gap::Cut)
            .data(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Le")
            .gap(TO_CLIENT, 900, Gap::Cut);
    }
    played.finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        ["GET /1 200 -/0 truncated (malformed head)", "GET /2 200 -/0 truncated (malformed head)"]
    );
}

#[test]
fn sizes_are_told_as_whole_only_where_what_was_cut_is_of_one_chunk() {
    let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
    let answered =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(3));
    let first = answered.find("64").unwrap();
    for (length, expected) in [(80, "GET /1 200 -/300 truncated"), (150, "GET /1 200 -/100 gap")] {
        let cut = first + 10..first + 10 + length;
        let mut played = Played::new(&PROTOCOL);
        played
            .data(TO_SERVER, b"GET /1 HTTP/1.1\r\n\r\n")
            .data(TO_CLIENT, &answered.as_bytes()[..cut.start])
            .gap(TO_CLIENT, length as u64, Gap::Cut)
            .data(TO_CLIENT, &answered.as_bytes()[cut.end..])
            .finish(End::Fin);
        assert_eq!(lines(&played.exchanges), [expected], "{cut:?}");
    }
}

#[test]
fn a_connection_joined_late_begins_with_what_is_sure() {
    let mut played = Played::late(&PROTOCOL);
    played
        .data(TO_CLIENT, b"rest of a body")
        .data(TO_SERVER, b"GET /1 HTTP/1.1\r\n\r\n")
        .data(TO_CLIENT, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n")
        .pause()
        .data(TO_SERVER, b"GET /2 HTTP/1.1\r\n\r\n")
        .data(TO_CLIENT, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n")
        .finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        ["GET /1 - -/- midstream", "? - 201 -/0 midstream", "GET /2 202 -/0 midstream"]
    );
}

#[test]
fn a_tunnel_is_something_else_from_its_answer_on() {
    let mut played = Played::new(&PROTOCOL);
    played
        .data(TO_SERVER, b"CONNECT shop:80 HTTP/1.1\r\n\r\nGET /inner HTTP/1.1\r\n\r\n")
        .data(TO_CLIENT, b"HTTP/1.1 200 Established\r\n\r\nHTTP/1.1 204 Inner\r\n\r\n")
        .finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["CONNECT shop:80 200 -/0 complete", "GET /inner 204 -/0 complete"]);
    assert_lines(
        &[
            ask("CONNECT shop:80 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
            answer(
                "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
        ],
        &["CONNECT shop:80 403 -/2 complete", "GET /2 200 -/0 complete"],
    );
    assert_lines(
        &[
            ask("GET /ws HTTP/1.1\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n"),
            answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n\x01\x02\x03"),
            ask("\x01\x02\x03"),
        ],
        &["GET /ws 101 -/0 complete"],
    );
}

#[test]
fn an_answer_may_come_before_its_request_is_whole() {
    assert_lines(
        &[
            ask("POST /1 HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345"),
            answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
            ask("67890GET /2 HTTP/1.1\r\n\r\n"),
            answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ask("POST /3 HTTP/1.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"),
            answer("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
            ask("GET /4 HTTP/1.1\r\n\r\n"),
            answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        &[
            "POST /1 413 10/0 complete",
            "GET /2 200 -/0 complete",
            "POST /3 417 -/0 complete",
            "GET /4 200 -/0 complete",
        ],
    );
}

#[test]
fn what_the_rules_do_not_allow_is_read_and_named() {
    for (head, body, expected) in [
        ("Content-Length: 3\r\nContent-Length: 3", "abc", "200 -/3 complete"),
        ("Content-Length: 3, 4", "abc", "200 -/3 complete (several content lengths)"),
        ("Content-Length: +3", "", "200 -/0 truncated (bad content length)"),
        ("Content-Length: 99999999999999999999", "", "200 -/0 truncated (bad content length)"),
        ("Content-Length: 0003", "abc", "200 -/3 complete"),
        (
            "Content-Length: 9\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "200 -/3 complete (length and transfer encoding)",
        ),
        ("Transfer-Encoding: gzip, chunked", "3\r\nabc\r\n0\r\n\r\n", "200 -/3 complete"),
        ("Transfer-Encoding: chunked", "zz\r\n", "200 -/0 truncated (bad chunk size)"),
        ("Transfer-Encoding: chunked", "fffffffffffffffff\r\n", "200 -/0 truncated (bad chunk size)"),
        ("Con\0tent : x\r\nContent-Length : 3", "abc", "200 -/3 complete (malformed head)"),
        ("X: a\r\n folded\r\nContent-Length: 3", "abc", "200 -/3 complete (malformed head)"),
        ("X: y\nContent-Length: 3", "abc", "200 -/3 complete"),
    ] {
        let mut played = Played::new(&PROTOCOL);
        played.data(TO_SERVER, b"GET /1 HTTP/1.1\r\n\r\n");
        played.data(TO_CLIENT, format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes());
        played.finish(End::Reset);
        assert_eq!(lines(&played.exchanges), [format!("GET /1 {expected}")], "{head}");
    }
    for (line, expected) in [
        ("get  /x   HTTP/1.1", "get /x 204 -/0 complete (malformed head)"),
        ("GET /a b HTTP/1.1", "GET /a b 204 -/0 complete (malformed head)"),
        ("QUERY /x HTTP/1.1", "QUERY /x 204 -/0 complete"),
        ("GET /x HTTP/1.9", "GET /x 204 -/0 complete (malformed head)"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * 204 -/0 complete"),
        ("GET http://a/x HTTP/1.1", "GET http://a/x 204 -/0 complete"),
    ] {
        assert_lines(
            &[ask(format!("{line}\r\nHost: a\r\n\r\n")), answer("HTTP/1.1 204 Fine\r\n\r\n")],
            &[expected],
        );
    }
}

#[test]
fn a_connection_that_breaks_off_is_not_complete() {
    for (end, expected) in [(End::Fin, "complete"), (End::Reset, "truncated"), (End::Unseen, "truncated")] {
        let mut played = Played::new(&PROTOCOL);
        played
            .data(TO_SERVER, b"GET /1 HTTP/1.0\r\n\r\n")
            .data(TO_CLIENT, b"HTTP/1.0 200 OK\r\n\r\nhalf")
            .finish(end);
        assert_eq!(lines(&played.exchanges), [format!("GET /1 200 -/4 {expected}")]);
    }
}

#[test]
fn attributes_are_those_of_opentelemetry() {
    let turns = [
        ask("LINK /a/b?q=1&token=t HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: curl/8\r\n\r\n"),
        answer("HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n"),
    ];
    let exchange = &play(&PROTOCOL, &turns)[0];
    let value = |name: &str| {
        let found = exchange.attributes.iter().find(|(attribute, _)| attribute.name() == name);
        match found.map(|(_, value)| value) {
            Some(AttributeValue::Text(text)) => text.to_string(),
            Some(AttributeValue::Number(number)) => number.to_string(),
            other => format!("{other:?}"),
        }
    };
    for (name, expected) in [
        ("http.request.method", "_OTHER"),
        ("http.request.method_original", "LINK"),
        ("http.response.status_code", "500"),
        ("url.path", "/a/b"),
        ("url.query", "q=1&token=REDACTED"),
        ("server.address", "::1"),
        ("server.port", "8080"),
        ("user_agent.original", "curl/8"),
        ("network.protocol.version", "1.1"),
        ("error.type", "500"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert_eq!((exchange.ok, exchange.error.as_deref()), (Some(false), Some("Oh No")));
}

/// Whole, in pieces, and cut off: no secret is in what comes out.
#[test]
fn secrets_do_not_leave_the_parser() {
    let request = "POST http://bob:hunter2@shop/login;jsessionid=hunter2?password=hunter2&x=1#access_token=hunter2 HTTP/1.1\r\n\
        Host: bob:hunter2@shop\r\nAuthorization: Basic hunter2\r\nCookie: id=hunter2\r\nX-Api-Key: hunter2\r\n\
        Content-Length: 16\r\n\r\npassword=hunter2";
    let response = "HTTP/1.1 200 OK\r\nSet-Cookie: id=hunter2\r\nLocation: /?token=hunter2\r\nContent-Length: 7\r\n\r\nhunter2";
    for length in 1..request.len() {
        let mut played = Played::new(&PROTOCOL);
        let (first, second) = request.split_at(length);
        played.data(TO_SERVER, first.as_bytes()).data(TO_SERVER, second.as_bytes());
        played.data(TO_CLIENT, response.as_bytes()).finish(End::Fin);
        assert!(!format!("{:?}", played.exchanges).contains("hunter"), "{length}");
        let mut cut = Played::new(&PROTOCOL);
        cut.data(TO_SERVER, first.as_bytes())
            .gap(TO_SERVER, 99, Gap::Cut)
            .data(TO_CLIENT, response.as_bytes());
        cut.finish(End::Reset);
        assert!(!format!("{:?}", cut.exchanges).contains("hunter"), "cut after {length}");
    }
}

#[test]
fn other_protocols_are_not_http() {
    for (asked, answered) in [
        ("SSH-2.0-OpenSSH\r\n", "SSH-2.0-OpenSSH\r\n"),
        ("OPTIONS sip:a@b SIP/2.0\r\n\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
        ("\x16\x03\x01\x02", ""),
        ("EHLO shop\r\n", "220 mail\r\n"),
    ] {
        let heads =
            Heads { to_server: asked.as_bytes(), to_client: answered.as_bytes(), transport: Transport::Tcp };
        assert_eq!(probe(&heads), Guess::No, "{asked:?}");
    }
}

#[test]
fn of_clients_that_ask_ahead_no_pair_is_certain_and_wrong() {
    harness::check_asking_ahead(&PROTOCOL, &[], |number| {
        let asked = format!("GET /{number} HTTP/1.1\r\n\r\n");
        (asked.into_bytes(), format!("HTTP/1.1 {} -\r\nContent-Length: 0\r\n\r\n", 400 + number).into_bytes())
    });
}
