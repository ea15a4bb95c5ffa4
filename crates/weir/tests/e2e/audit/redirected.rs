//! Requests on redirected connections: each once, with both addresses.

use serde_json::Value;
use weir_testkit::require_root;

use super::assert_complete;
use super::servers::{Client, Server};
use crate::redirect::Host;
use crate::weir::{Run, Weir, text};

const AUDIT: [&str; 3] = ["audit", "-o", "jsonl"];

/// A server, and two ways to it besides its own address: another port, and an address that nobody has.
struct Scene {
    host: Host,
    server: Server,
}

impl Scene {
    fn new() -> Self {
        let host = Host::new(&["web", "shop"]);
        let web = host.topology.container("web");
        let server = Server::nginx(web.namespace(), web.ipv4());
        Self { host, server }
    }

    fn redirect(&self) {
        let web = self.host.address("web", 80);
        self.host.redirects(&["add", "--name", "port", &format!("{}:8080", web.ip()), ":80"]);
        self.host.redirects(&["add", "--name", "virtual", "10.99.0.1:80", &web.to_string()]);
    }

    /// Asks on each way, and directly.
    fn ask(&self) {
        let shop = self.host.topology.container("shop");
        let ways = [
            ("/port", self.host.address("web", 8080)),
            ("/virtual", "10.99.0.1:80".parse().unwrap()),
            ("/direct", self.server.address),
        ];
        for (path, address) in ways {
            let mut client = Client::connect(shop.namespace(), address);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n").as_bytes());
            let head = String::from_utf8(client.until(b"\r\n\r\n")).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            client.exactly(length.parse().unwrap());
        }
    }

    fn check(&self, run: &Run) {
        assert_complete(run);
        let told = |path: &str| {
            let of: Vec<&Value> =
                run.records.iter().filter(|record| text(&record["target"]) == path).collect();
            assert_eq!(of.len(), 1, "{path}: {}", run.lines());
            of[0]
        };
        assert_eq!(run.records.len(), 3, "{}", run.lines());
        for (path, rule, port, ip) in [
            ("/port", "port", 8080, self.server.address.ip().to_string()),
            ("/virtual", "virtual", 80, "10.99.0.1".to_owned()),
        ] {
            let record = told(path);
            assert_eq!((text(&record["rule"]), &record["server"]["port"]), (rule, &port.into()), "{record}");
            assert_eq!(text(&record["server"]["ip"]), ip, "{record}");
            let seen = &record["translated"]["server"];
            assert_eq!(text(&seen["ip"]), self.server.address.ip().to_string(), "{record}");
            assert_eq!(seen["port"], 80, "{record}");
        }
        let direct = told("/direct");
        assert_eq!((&direct["rule"], &direct["translated"]), (&Value::Null, &Value::Null), "{direct}");
    }
}

#[test]
fn root_the_weir_that_runs_reads_payload_while_somebody_asks() {
    require_root!();
    let scene = Scene::new();
    let _run = scene.host.run();
    scene.redirect();
    scene.ask();
    // Connections of before are over: nobody asked then.
    for _ in 0..2 {
        let audit = Weir::start(&mut scene.host.weir(&AUDIT));
        scene.ask();
        for path in ["/port", "/virtual", "/direct"] {
            audit.wait_for_record(|record| text(&record["target"]) == path);
        }
        scene.check(&audit.finish());
    }
}

#[test]
fn root_audit_keeps_pinned_state_that_nobody_keeps() {
    require_root!();
    let scene = Scene::new();
    scene.redirect();
    let audit = Weir::start(&mut scene.host.weir(&[&AUDIT[..], &["--engine", "none"]].concat()));
    scene.ask();
    scene.check(&audit.finish());
    // What stays goes on redirecting, and copies nothing.
    scene.ask();
}
