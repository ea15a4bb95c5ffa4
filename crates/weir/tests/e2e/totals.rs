//! What `weir redirect list` counts, held against what went over a rule's connections.

use serde_json::Value;
use weir_testkit::traffic::{EchoServer, connect, exchange, tcp_echo};
use weir_testkit::{Stream, require_root, wait_until};

use crate::redirect::Host;
use crate::weir::{LIMIT, Weir, number, text};

fn rule<'a>(rules: &'a [Value], name: &str) -> &'a Value {
    rules.iter().find(|rule| rule["name"] == name).unwrap_or_else(|| panic!("no {name} in {rules:?}"))
}

fn total(host: &Host, name: &str) -> u64 {
    number(&rule(&host.rules(), name)["bytes"])
}

/// By the records of the weir that runs: what the connections of a rule have brought that it has told the end of.
fn told(observer: &Weir, name: &str, count: usize) -> u64 {
    let closes = || -> Vec<Value> {
        let lines = observer.daemon.stdout();
        let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["event"] == "close" && record["rule"] == name).collect()
    };
    wait_until(LIMIT, "the connections have ended", || closes().len() == count);
    closes().iter().map(|record| number(&record["sent_bytes"]) + number(&record["received_bytes"])).sum()
}

/// Closed connections, an open one, some while no weir runs, a restart in between, other rules, and an end.
#[test]
fn root_a_rule_tells_the_bytes_of_all_its_connections() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let client = host.namespace("client");
    let _server = EchoServer::tcp_at(host.namespace("web"), host.address("web", 80));
    let asked = host.address("web", 8080);
    let what = format!("{}:8080", host.name("web"));
    let run = host.run();
    host.redirects(&["add", "--name", "moved", &what, ":80"]);
    assert_eq!(total(&host, "moved"), 0);
    let observe = || Weir::start(&mut host.weir(&["observe", "-o", "jsonl", "--verdict", "redirected"]));
    let observer = observe();
    tcp_echo(client, asked, 5, 300_000);
    let first = told(&observer, "moved", 5);
    assert!(first > 5 * 2 * 300_000, "{first}");
    wait_until(LIMIT, "all is listed that was told", || total(&host, "moved") == first);

    // One that is open, others while nobody is there, and who comes then.
    let mut open = connect(client, asked);
    exchange(&mut open, 100_000);
    drop(observer);
    let mut run = run;
    run.stop(libc::SIGKILL, LIMIT);
    let before = total(&host, "moved");
    assert!(before > first + 2 * 100_000, "{before}");
    tcp_echo(client, asked, 3, 200_000);
    let alone = total(&host, "moved") - before;
    assert!(alone > 3 * 2 * 200_000 && alone < 3 * 2 * 240_000, "{alone}");
    let mut run = host.run();
    let observer = observe();
    exchange(&mut open, 50_000);
    drop(open);
    let last = told(&observer, "moved", 1);
    assert!(last > 2 * 150_000, "{last}");
    // Of the others the last packets may have come while `before` was read.
    let rules = host.rules();
    let all = number(&rule(&rules, "moved")["bytes"]);
    assert!(all >= first + last + 3 * 2 * 200_000 && all < first + last + 3 * 2 * 240_000, "{rules:?}");
    assert_eq!(
        (number(&rule(&rules, "moved")["hits"]), &rule(&rules, "moved")["live_connections"]),
        (9, &0.into())
    );

    // Another rule, one more specific than this one, and its end: this one's total stays.
    host.redirects(&["add", "--name", "other", &format!("{}:81", host.name("web")), ":80"]);
    host.redirects(&["add", "--name", "narrow", &what, ":80", "--from", &host.name("client")]);
    tcp_echo(client, asked, 1, 1000);
    let rules = host.rules();
    assert_eq!((number(&rule(&rules, "moved")["bytes"]), &rule(&rules, "moved")["hits"]), (all, &9.into()));
    assert!(
        number(&rule(&rules, "narrow")["bytes"]) > 2000 && rule(&rules, "other")["bytes"] == 0,
        "{rules:?}"
    );
    host.redirects(&["remove", "narrow", "other"]);
    assert_eq!(total(&host, "moved"), all);
    let table = host.redirects(&["list"]);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap()[5..8], ["HITS", "LIVE", "BYTES"], "{table}");
    assert!(lines.next().unwrap()[5..].starts_with(&["9", "0"]), "{table}");
    assert!(host.redirects(&["show", "moved"]).contains("\n  bytes       "));

    // Its container is away, and weir is started again: it is still the same rule.
    host.topology.host().ip_batch("link set veth-web down\n");
    run.stop(libc::SIGTERM, LIMIT);
    let mut run = host.run();
    host.topology.host().ip_batch("link set veth-web up\n");
    assert_eq!(total(&host, "moved"), all);

    // Added anew it begins at zero, whatever is open still.
    let mut open = connect(client, asked);
    exchange(&mut open, 1000);
    host.redirects(&["remove", "moved"]);
    host.redirects(&["add", "--name", "moved", &what, ":80"]);
    exchange(&mut open, 1000);
    let rules = host.rules();
    assert_eq!(text(&rules[0]["name"]), "moved");
    for field in ["hits", "bytes", "live_connections"] {
        assert_eq!(rules[0][field], 0, "{field}: {rules:?}");
    }
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
    run.stop(libc::SIGTERM, LIMIT);
}
