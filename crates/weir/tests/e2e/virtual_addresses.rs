//! Addresses that nobody has: who is told where they are.

use std::net::SocketAddr;

use serde_json::Value;
use weir_testkit::traffic::EchoServer;
use weir_testkit::{Namespace, require_root, wait_until};

use crate::redirect::{Host, answers};
use crate::weir::LIMIT;

/// An address in the clients' network that nobody has: they ask who has it, and weir answers.
#[test]
fn root_a_virtual_address_answers_containers_and_the_host() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let (web, client) = (host.topology.container("web"), host.topology.container("client"));
    let _v4 = EchoServer::tcp_at(web.namespace(), host.address("web", 80));
    let _v6 = EchoServer::tcp_at(web.namespace(), SocketAddr::new(web.ipv6().into(), 80));
    for (asked, address) in
        [("10.99.0.77:80", [10, 99, 0, 77].into()), ("[fd99::77]:80", "fd99::77".parse().unwrap())]
    {
        host.redirects(&["add", asked, &host.name("web")]);
        let asked = SocketAddr::new(address, 80);
        assert!(answers(client.namespace(), asked), "{asked} for a container");
        assert!(answers(host.topology.host(), asked), "{asked} for the host");
    }
    let virtual_addresses =
        |rule: &Value| rule["addresses"].as_array().unwrap().iter().all(|one| one["virtual"] == true);
    let rules = host.rules();
    assert!(rules.iter().all(|rule| virtual_addresses(rule) && rule["hits"] == 2), "{rules:?}");
}

/// Who is no client learns nothing of the address, nor does the host.
#[test]
fn root_a_virtual_address_answers_only_whom_a_rule_lets_in() {
    require_root!();
    let host = Host::new(&["web", "client", "other"]);
    let web = host.topology.container("web");
    let _v4 = EchoServer::tcp_at(web.namespace(), host.address("web", 80));
    let _v6 = EchoServer::tcp_at(web.namespace(), SocketAddr::new(web.ipv6().into(), 80));
    let neighbor = |who: &Namespace, address: &str| {
        let output = who.command("ip").args(["neigh", "show", address]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (asked, address) in [("10.99.0.77", "10.99.0.77:80"), ("fd99::77", "[fd99::77]:80")] {
        host.redirects(&["add", address, &host.name("web"), "--from", &host.name("client")]);
        let address: SocketAddr = address.parse().unwrap();
        for who in [host.namespace("other"), host.topology.host()] {
            assert!(!answers(who, address), "{asked}");
            let entry = neighbor(who, asked);
            assert!(entry.contains("FAILED") || entry.contains("INCOMPLETE"), "{entry}");
        }
        assert!(answers(host.namespace("client"), address), "{asked}");
        let entry = neighbor(host.namespace("client"), asked);
        assert!(entry.contains("lladdr"), "{entry}");
        // Everybody is let in by another rule, on another port.
        host.redirects(&[
            "add",
            &address.to_string().replace(":80", ":81"),
            &format!("{}:80", host.name("web")),
        ]);
        let other = SocketAddr::new(address.ip(), 81);
        // They ask anew when they have given up what they asked before.
        for who in [host.namespace("other"), host.topology.host()] {
            wait_until(LIMIT, "the address is found", || answers(who, other));
        }
    }
}
