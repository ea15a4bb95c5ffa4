//! Which records are printed, for each filter: many weirs look at one traffic.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Topology, require_root};

use crate::weir::{Run, Weir, has_port};

/// The traffic, and what each piece of it is called below.
///
/// - `web-db`: TCP over IPv4
/// - `web-db6`: TCP over IPv6
/// - `api-db`: UDP over IPv4
/// - `api-host`: ping over IPv6
struct Traffic {
    tcp_port: String,
    tcp6_port: String,
    udp_port: String,
}

fn names(run: &Run, traffic: &Traffic) -> BTreeSet<String> {
    run.records
        .iter()
        .filter(|record| record["kind"] == "flow" && record["protocol"] != "icmp")
        .filter_map(|flow| {
            let port = |record: &Value| record["server"]["port"].to_string();
            match flow["protocol"].as_str() {
                Some("tcp") if port(flow) == traffic.tcp_port => Some("web-db"),
                Some("tcp") if port(flow) == traffic.tcp6_port => Some("web-db6"),
                Some("udp") if port(flow) == traffic.udp_port => Some("api-db"),
                Some("icmpv6") if flow["icmp_type"] == 128 => Some("api-host"),
                _ => None,
            }
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn root_filters() {
    require_root!();
    let topology = Topology::with_containers(&["web", "api", "db"]);
    let (web, api, db) = (topology.container("web"), topology.container("api"), topology.container("db"));
    let tcp = EchoServer::tcp(db.namespace(), db.ipv4());
    let tcp6 = EchoServer::tcp(db.namespace(), db.ipv6());
    let udp = EchoServer::udp(db.namespace(), db.ipv4());
    let port = |server: &EchoServer| server.address().port().to_string();
    let traffic = Traffic { tcp_port: port(&tcp), tcp6_port: port(&tcp6), udp_port: port(&udp) };
    let (web_name, db_name) = (web.namespace().name(), db.namespace().name());
    let to_db_tcp = format!("{db_name}:{}", traffic.tcp_port);

    // (arguments, what is printed)
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "web-db web-db6 api-db api-host"),
        (vec!["--container", web_name], "web-db web-db6"),
        (vec!["--container", "*-api"], "api-db api-host"),
        (vec!["--container", web_name, "--container", "*-api"], "web-db web-db6 api-db api-host"),
        (vec!["--not", "--container", web_name], "api-db api-host"),
        (vec!["--from", "*-api", "--to", "host"], "api-host"),
        (vec!["--to", db_name, "--protocol", "tcp"], "web-db web-db6"),
        (vec!["--to", &to_db_tcp], "web-db"),
        (vec!["--ip", "10.99.0.0/24"], "web-db api-db"),
        (vec!["--ip", "fd99::1"], "api-host"),
        (vec!["--ip", "192.0.2.0/24"], ""),
        (vec!["--port", &traffic.udp_port], "api-db"),
        (vec!["--port", &traffic.udp_port, "--port", &traffic.tcp6_port], "api-db web-db6"),
        (vec!["--protocol", "udp"], "api-db"),
        (vec!["--protocol", "icmp"], "api-host"),
        (vec!["--not", "--protocol", "tcp", "--not", "--protocol", "icmp"], "api-db"),
        (vec!["--state", "closed"], "web-db web-db6"),
        (vec!["-4"], "web-db api-db"),
        (vec!["-6"], "web-db6 api-host"),
        (vec!["--ip-version", "6", "--protocol", "tcp"], "web-db6"),
        (vec!["--not", "-6"], "web-db api-db"),
        (vec!["--interface", "veth-web"], "web-db web-db6"),
        (vec!["--since", "5m"], "web-db web-db6 api-db api-host"),
        (vec!["--from", "world"], ""),
    ];
    // Not all at once: a device takes 64 programs at a hook.
    for cases in cases.chunks(12) {
        let weirs: Vec<Weir> = cases.iter().map(|(args, _)| Weir::observe(topology.host(), args)).collect();
        let everything = Weir::observe(topology.host(), &[]);
        for server in [&tcp, &tcp6] {
            traffic::tcp_echo(web.namespace(), server.address(), 1, 100);
        }
        traffic::udp_echo(api.namespace(), udp.address(), 1, 100);
        traffic::ping(api.namespace(), Topology::HOST_IPV6, 1, 56);
        for server in [&tcp, &tcp6] {
            let port = server.address().port();
            everything.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", port));
        }
        for ((args, expected), weir) in cases.iter().zip(weirs) {
            let run = weir.finish();
            let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
            assert_eq!(names(&run, &traffic), expected, "{args:?}: {}", run.lines());
            // What is filtered away is counted all the same.
            assert_eq!(run.summary["lost"], serde_json::json!({}), "{args:?}");
        }
        everything.finish();
    }
}
