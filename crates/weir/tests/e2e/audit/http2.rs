//! nghttpd, asked by h2load and curl.

use weir_testkit::{Topology, require_root};

use super::servers::Server;
use super::{assert_complete, audit};

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
