//! Targets that go, and come back.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use weir_testkit::traffic::{EchoServer, tcp_echo};
use weir_testkit::{require_root, wait_until};

use crate::redirect::Host;
use crate::weir::LIMIT;

/// What `list` and `show` say is what is in force, not what would be.
#[test]
fn root_without_weir_run_it_is_said_that_nobody_follows() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    host.redirects(&["add", "--name", "second", &format!("{}:8080", host.name("web")), ":80"]);
    assert_eq!(host.rules()[0]["warnings"], serde_json::json!([]));
    let stands_for = |address: &str| {
        let rule = host.rules().remove(0);
        rule["addresses"].as_array().unwrap().iter().any(|one| one["address"] == address)
    };
    assert!(stands_for("10.99.0.2"));

    host.namespace("web")
        .ip_batch("address delete 10.99.0.2/24 dev eth0\naddress add 10.99.0.200/24 dev eth0\n");
    assert!(stands_for("10.99.0.2") && !stands_for("10.99.0.200"));
    for list in [host.redirects(&["list"]), host.redirects(&["show", "second"])] {
        assert!(list.contains("until `weir run` runs"), "{list}");
    }
    let run = host.run();
    wait_until(LIMIT, "the rule has followed", || stands_for("10.99.0.200"));
    assert!(!stands_for("10.99.0.2"));
    assert_eq!(host.rules()[0]["warnings"], serde_json::json!([]));
    drop(run);
}

/// It runs on, and is in no network: as after `docker network disconnect`.
#[test]
fn root_while_a_target_is_in_no_network_the_others_serve() {
    require_root!();
    let host = Host::new(&["v1", "v2", "client"]);
    let run = host.run();
    let asked = SocketAddr::new(IpAddr::from([10, 55, 0, 1]), 80);
    let target = format!("{},{}", host.name("v1"), host.name("v2"));
    host.redirects(&["add", "--name", "shared", &asked.to_string(), &target]);
    let _first = EchoServer::tcp_at(host.namespace("v1"), host.address("v1", 80));
    let targets = |rule: &Value| rule["addresses"][0]["targets"].as_array().map_or(0, Vec::len);

    host.topology.host().ip_batch("link delete veth-v2\n");
    wait_until(LIMIT, "one target is left", || targets(&host.rules()[0]) == 1);
    tcp_echo(host.namespace("client"), asked, 50, 10);
    let note = format!(
        "{} is in no network; until it is in one, connections to it are shared by the other targets",
        host.name("v2")
    );
    assert_eq!(host.rules()[0]["warnings"], serde_json::json!([note]));
    for list in [host.redirects(&["list"]), host.redirects(&["show", "shared"])] {
        assert!(list.contains(&note), "{list}");
    }

    host.topology.host().ip_batch(&format!(
        "link add veth-v2 type veth peer name eth0 netns {}\n\
         link set veth-v2 master br0 up\n",
        host.name("v2")
    ));
    host.namespace("v2").ip_batch("link set eth0 up\naddress add 10.99.0.201/24 dev eth0\n");
    host.namespace("v2").ip_batch("route add default via 10.99.0.1\n");
    wait_until(LIMIT, "both serve", || targets(&host.rules()[0]) == 2);
    assert_eq!(host.rules()[0]["warnings"], serde_json::json!([]));
    let _second = EchoServer::tcp_at(host.namespace("v2"), "10.99.0.201:80".parse().unwrap());
    tcp_echo(host.namespace("client"), asked, 50, 10);
    drop(run);
}
