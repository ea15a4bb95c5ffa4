//! Nobody reads the ring: what is lost is counted, and marked on what it touched.

use std::collections::BTreeMap;

use weir_testkit::{Topology, require_root};

use super::audit;
use super::servers::{Client, Server};
use crate::weir::{number, text};

#[test]
fn root_every_loss_is_counted_and_marked() {
    require_root!();
    const ROUNDS: u64 = 200;
    const LATE_CLIENTS: u64 = 20;
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nginx(web.namespace(), web.ipv4());
    server.folder.write("www/page", &"x".repeat(20_000));
    let weir = audit(topology.host(), &["--payload-ring", "256KiB"]);
    let connect = || Client::connect(shop.namespace(), server.address);
    let ask = |client: &mut Client, target: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: web\r\n\r\n").as_bytes());
        let head = String::from_utf8(client.until(b"\r\n\r\n")).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        client.exactly(length.parse().unwrap());
    };
    let mut early = connect();
    ask(&mut early, "/echo/first");
    weir.wait_for_record(|record| record["target"] == "/echo/first");

    weir.daemon.signal(libc::SIGSTOP);
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        ask(&mut early, "/page");
        // When it is nearly full, whole connections are refused.
        if round >= ROUNDS - LATE_CLIENTS {
            let mut client = connect();
            ask(&mut client, "/echo/late");
            late.push(client);
        }
    }
    weir.daemon.signal(libc::SIGCONT);
    // Once it has caught up: everything is as before, for connections that are read at all.
    let mut after = connect();
    weir_testkit::wait_until(crate::weir::LIMIT, "a request that is read again", || {
        ask(&mut after, "/echo/after");
        let told = |line: &String| line.contains("/echo/after");
        if !weir.daemon.stdout().iter().any(told) {
            // Refused as a whole, while the ring was still full.
            after = connect();
            return false;
        }
        true
    });
    for client in &mut late {
        ask(client, "/echo/later");
    }
    let run = weir.finish();
    let lost = &run.summary["lost"];
    let shed = number(&lost["payload_shed_bytes"]);
    assert!(shed > 0 && number(&lost["payload_ring_full"]) > 0, "{lost}");
    assert_eq!(number(&lost["stream_gaps_cut"]) > 0, shed > 0, "{lost}");
    assert!(number(&lost["stream_gaps_lost"]) > 0, "{lost}");
    assert!(number(&lost["conversations_refused"]) >= LATE_CLIENTS, "{lost}");
    assert!(
        !run.records.iter().any(|record| text(&record["target"]).starts_with("/echo/late")),
        "{}",
        run.lines()
    );

    let mut marks = BTreeMap::<(String, String), u64>::new();
    for record in run.records.iter().filter(|record| record["target"] == "/page") {
        let mark = (text(&record["matched"]).to_owned(), text(&record["capture"]).to_owned());
        *marks.entry(mark.clone()).or_default() += 1;
        if mark == ("yes".to_owned(), "complete".to_owned()) {
            assert!(number(&record["response_bytes"]) > 20_000, "{record}");
        }
    }
    let complete = marks.get(&("yes".into(), "complete".into())).copied().unwrap_or_default();
    let truncated = marks.get(&("yes".into(), "truncated".into())).copied().unwrap_or_default();
    assert!(complete > 0, "{marks:?}");
    assert!(truncated > 0, "{marks:?}");
    assert!(complete + truncated < ROUNDS, "{marks:?}");
    server.stop();
}
