//! nghttpd, asked by h2load and curl.

use std::fs::File;

use serde_json::Value;
use weir_testkit::{Namespace, Topology, require_root};

use super::servers::{Server, download};
use super::{assert_complete, audit};
use crate::weir::{Run, number, text};

#[test]
fn root_streams_are_all_told() {
    require_root!();
    const REQUESTS: usize = 2_000;
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nghttpd(web.namespace(), web.ipv4());
    let weir = audit(topology.host(), &[]);
    let url = format!("http://{}/index.html", server.address);
    let count = REQUESTS.to_string();
    let load = shop.namespace().command("h2load").args(["-n", &count, "-c", "3", "-m", "16", &url]).output();
    let said = String::from_utf8(load.unwrap().stdout).unwrap();
    assert!(said.contains(&format!("{REQUESTS} succeeded")), "{said}");
    let missing = format!("http://{}/missing", server.address);
    let asked =
        shop.namespace().command("curl").args(["-s", "--http2-prior-knowledge", &missing]).output().unwrap();
    assert!(asked.status.success(), "{asked:?}");
    let run = weir.finish();
    let with = |target: &str, status: &str| {
        let of = |record: &&serde_json::Value| {
            record["attributes"]["network.protocol.version"] == "2"
                && record["target"] == target
                && record["status"] == status
        };
        run.records.iter().filter(of).count()
    };
    assert_eq!((with("/index.html", "200"), with("/missing", "404")), (REQUESTS, 1), "{}", run.summary);
    assert_complete(&run);
    server.stop();
}

/// Each target, with the length of its answer's body.
fn bodies(run: &Run) -> Vec<(&str, u64)> {
    let body = |record: &Value| number(&record["attributes"]["http.response.body.size"]);
    let mut bodies: Vec<_> =
        run.records.iter().map(|record| (text(&record["target"]), body(record))).collect();
    bodies.sort_unstable();
    bodies
}

/// What was read of so many bytes of bodies is little, and what is left out is the rest.
#[track_caller]
fn assert_little_was_read(run: &Run, bodies: u64) {
    let (read, left_out) = (number(&run.summary["captured_bytes"]), number(&run.summary["left_out_bytes"]));
    assert!(read < bodies / 4, "{read} bytes read of {bodies}");
    assert!(read + left_out > bodies && left_out < bodies, "{read} bytes read, {left_out} left out");
}

/// Has `ask` download so many bodies of that size from a namespace and a URL.
#[track_caller]
fn assert_downloads_are_told(body_bytes: u64, times: usize, ask: impl FnOnce(&Namespace, &str)) {
    let topology = Topology::with_containers(&["web", "shop"]);
    let (web, shop) = (topology.container("web"), topology.container("shop"));
    let server = Server::nghttpd(web.namespace(), web.ipv4());
    File::create(server.folder.path().join("big")).unwrap().set_len(body_bytes).unwrap();
    let weir = audit(topology.host(), &["--payload-ring", "64MiB"]);
    let url = format!("http://{}/big", server.address);
    download(&weir, web.namespace(), || ask(shop.namespace(), &url));
    let run = weir.finish();
    assert_eq!(bodies(&run), vec![("/big", body_bytes); times]);
    assert_complete(&run);
    assert_little_was_read(&run, times as u64 * body_bytes);
    server.stop();
}

#[test]
fn root_a_big_download_costs_the_heads_of_its_frames() {
    require_root!();
    assert_downloads_are_told(200_000_003, 1, |shop, url| {
        let arguments = ["-sS", "--http2-prior-knowledge", "-o", "/dev/null", url];
        let asked = shop.command("curl").args(arguments).output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
    });
}

/// Many at a time, on one connection: frames of all of them stand between each other.
#[test]
fn root_downloads_at_once_are_told_apart() {
    require_root!();
    assert_downloads_are_told(20_000_003, 12, |shop, url| {
        let load = shop.command("h2load").args(["-n", "12", "-c", "1", "-m", "6", url]).output();
        let said = String::from_utf8(load.unwrap().stdout).unwrap();
        assert!(said.contains("12 succeeded"), "{said}");
    });
}
