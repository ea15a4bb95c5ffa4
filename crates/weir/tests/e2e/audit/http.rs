//! nginx.

use std::fs::File;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use weir_testkit::{Topology, require_root};

use super::servers::{Client, Server, download};
use super::{assert_complete, audit, by_connection};
use crate::weir::{number, text};

/// What both the client and weir know of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    method: String,
    target: String,
    status: String,
    request_bytes: u64,
    response_bytes: u64,
}

impl Line {
    fn of(record: &Value) -> Self {
        Self {
            method: text(&record["operation"]).to_owned(),
            target: text(&record["target"]).to_owned(),
            status: text(&record["status"]).to_owned(),
            request_bytes: number(&record["request_bytes"]),
            response_bytes: number(&record["response_bytes"]),
        }
    }
}

/// A client that asks one thing after the other, or several at once, and logs what it gets.
struct Http {
    client: Client,
    log: Vec<Line>,
    waiting: Vec<(String, String, u64)>,
}

impl Http {
    fn new(client: Client) -> Self {
        Self { client, log: Vec::new(), waiting: Vec::new() }
    }

    fn send(&mut self, method: &str, target: &str, body: &str) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: web\r\n{length}\r\n{body}");
        self.client.send(request.as_bytes());
        self.waiting.push((method.to_owned(), target.to_owned(), request.len() as u64));
    }

    fn receive(&mut self) {
        for (method, target, request_bytes) in self.waiting.drain(..) {
            let head = String::from_utf8(self.client.until(b"\r\n\r\n")).unwrap();
            let status = head.split(' ').nth(1).unwrap().to_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let body = if method == "HEAD" { 0 } else { length.map_or(0, |length| length.parse().unwrap()) };
            self.client.exactly(body);
            let response_bytes = head.len() as u64 + body;
            self.log.push(Line { method, target, status, request_bytes, response_bytes });
        }
    }

    fn ask(&mut self, method: &str, target: &str) {
        self.send(method, target, "");
        self.receive();
    }
}

#[test]
fn root_requests_are_those_of_the_clients_log() {
    require_root!();
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nginx(web.namespace(), web.ipv4());
    let weir = audit(topology.host(), &[]);

    let mut clients: Vec<Http> =
        (0..4).map(|_| Http::new(Client::connect(shop.namespace(), server.address))).collect();
    for round in 0..50 {
        for (index, http) in clients.iter_mut().enumerate() {
            http.ask("GET", &format!("/echo/{index}/{round}"));
            http.ask("HEAD", "/index.html");
            http.ask("GET", "/gone/");
            http.ask("DELETE", "/index.html");
            http.send("POST", &format!("/echo/{round}"), &"x".repeat(round * 100 + 1));
            http.receive();
            // Several at once.
            for ahead in 0..round % 7 {
                http.send("GET", &format!("/echo/{round}/{ahead}"), "");
            }
            http.receive();
        }
    }
    let mut log: Vec<(u16, Vec<Line>)> =
        clients.into_iter().map(|http| (http.client.port(), http.log)).collect();
    log.sort_by_key(|(port, _)| *port);
    let run = weir.finish();
    let found = by_connection(&run, Line::of);
    for ((_, asked), found) in log.iter().zip(&found) {
        for (asked, found) in asked.iter().zip(found) {
            assert_eq!(found, asked);
        }
    }
    assert_eq!(found, log.into_iter().map(|(_, log)| log).collect::<Vec<_>>());
    assert_complete(&run);
    let first = &run.records[0];
    assert_eq!(first["client"]["container"], shop.namespace().name());
    assert_eq!(first["server"]["container"], web.namespace().name());
    assert_eq!(first["protocol"], "http");
    server.stop();
}

#[test]
fn root_a_big_download_costs_its_head() {
    require_root!();
    const BODY: u64 = 1 << 28;
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nginx(web.namespace(), web.ipv4());
    let file = File::create(server.folder.path().join("www/big")).unwrap();
    file.set_len(BODY).unwrap();
    let weir = audit(topology.host(), &["--payload-ring", "64MiB"]);
    let mut http = Http::new(Client::connect(shop.namespace(), server.address));
    http.ask("GET", "/index.html");
    download(&weir, web.namespace(), || http.ask("GET", "/big"));
    http.ask("GET", "/index.html");
    let run = weir.finish();
    assert_eq!(by_connection(&run, Line::of), [http.log]);
    assert_complete(&run);
    let (read, left_out) = (number(&run.summary["captured_bytes"]), number(&run.summary["left_out_bytes"]));
    assert!(read < BODY / 16, "{read} bytes read");
    assert!(read + left_out > BODY && left_out <= BODY, "{read} bytes read, {left_out} left out");
}

#[test]
fn root_a_connection_joined_late_is_read_on() {
    require_root!();
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nginx(web.namespace(), web.ipv4());
    let mut http = Http::new(Client::connect(shop.namespace(), server.address));
    http.ask("GET", "/echo/before");
    let weir = audit(topology.host(), &[]);
    http.log.clear();
    for round in 0..20 {
        http.ask("GET", &format!("/echo/{round}"));
    }
    // What is waited for is the time itself: only a pause proves that nothing is under way.
    thread::sleep(Duration::from_millis(1_100));
    http.ask("GET", "/echo/after");
    let run = weir.finish();
    let asked: Vec<Line> = http.log;
    let found: Vec<&Value> = run.records.iter().filter(|record| record["matched"] != "no_request").collect();
    assert_eq!(found.len(), asked.len(), "{}", run.lines());
    for (record, asked) in found.iter().zip(&asked) {
        assert_eq!(record["target"], asked.target.as_str());
    }
    for (round, (record, asked)) in found.iter().zip(&asked).enumerate() {
        let (matched, capture) = match round {
            // It cannot be known whether the answers that follow are their own.
            0..16 => ("no_response", "midstream"),
            16..20 => ("yes", "midstream"),
            _ => ("yes", "complete"),
        };
        assert_eq!((text(&record["matched"]), text(&record["capture"])), (matched, capture), "{record}");
        assert!(matched != "yes" || Line::of(record) == *asked, "{record}");
    }
    assert_eq!(run.summary["lost"], serde_json::json!({}));
}

#[test]
fn root_filters_and_sums() {
    require_root!();
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nginx(web.namespace(), web.ipv4());
    let name = web.namespace().name();
    let weirs = [
        (vec!["--status", "5xx"], 10),
        (vec!["--path", "/echo/*", "--to", name], 20),
        (vec!["--errors", "--not", "--status", "503"], 0),
        (vec!["--from", name], 0),
        (vec!["--interface", "veth-web", "--count", "7"], 7),
        (vec!["--protocol", "redis"], 0),
        (vec!["--last", "3"], 3),
    ];
    let running: Vec<_> = weirs.iter().map(|(args, _)| audit(topology.host(), args)).collect();
    let fixed = ["audit", "stats", "--by", "route", "-o", "jsonl", "--engine", "none"];
    let sums = crate::weir::Weir::start(&mut crate::weir::command(topology.host(), &fixed));
    let mut http = Http::new(Client::connect(shop.namespace(), server.address));
    for round in 0..10 {
        http.ask("GET", &format!("/echo/{round}"));
        http.ask("GET", "/gone/");
        http.ask("GET", &format!("/echo/{round}"));
    }
    for ((args, expected), weir) in weirs.iter().zip(running) {
        let run = if args.contains(&"--count") { weir.wait() } else { weir.finish() };
        assert_eq!(run.records.len(), *expected, "{args:?}: {}", run.lines());
    }
    let run = sums.finish();
    let count = |target: &str| {
        let of = |record: &&Value| text(&record["group"]).contains(target);
        run.records.iter().filter(of).map(|record| number(&record["requests"])).sum::<u64>()
    };
    assert_eq!((count("/echo/"), count("/gone/")), (20, 10), "{}", run.lines());
}
