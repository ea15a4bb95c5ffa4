//! End to end with a real Docker engine: names, compose labels, renames and
//! stops reach the records.

use serde_json::Value;
use weir_testkit::engine::{Engine, IMAGE};
use weir_testkit::{Bpffs, Daemon, Stream, require_root, wait_until};

use crate::weir::{LIMIT, Weir, command, command_with_state, number, text};

const NETWORK: &str = "shop_default";
const DB_ADDRESS: &str = "10.97.0.20";

/// Runs a container as compose would.
fn compose(engine: &Engine, service: &str, address: Option<&str>, command: &[&str]) -> String {
    let label = format!("com.docker.compose.service={service}");
    let mut args =
        vec!["--network", NETWORK, "--label", "com.docker.compose.project=shop", "--label", &label];
    args.extend(["--label", "com.docker.compose.container-number=1"]);
    if let Some(address) = address {
        args.extend(["--ip", address]);
    }
    engine.run(&format!("shop-{service}-1"), &args, command)
}

/// One HTTP request from a container to port 80 of `address`.
#[track_caller]
fn get(engine: &Engine, container: &str, address: &str) {
    let url = format!("http://{address}/bin/busybox");
    engine.docker(&["exec", container, "wget", "-q", "-O", "/dev/null", &url]);
}

/// Whether a record ends a connection to port 80 of `address`.
fn is_closed_request(record: &Value, address: &str) -> bool {
    record["event"] == "close" && record["server"]["ip"] == address && record["server"]["port"] == 80
}

/// The newest record that tells the end of a connection to `address` from the
/// container that is called `client`.
#[track_caller]
fn closed_request(weir: &Weir, client: &str, address: &str) -> Value {
    weir.wait_for_record(|record| {
        record["client"]["container"] == client && is_closed_request(record, address)
    })
}

#[test]
fn root_docker_names_labels_renames_and_stops() {
    require_root!();
    let mut engine = Engine::start();
    engine.docker(&["network", "create", "--subnet", "10.97.0.0/24", NETWORK]);
    let server = ["httpd", "-f", "-p", "80"];
    let db = compose(&engine, "db", Some(DB_ADDRESS), &server);
    let socket = engine.socket().display().to_string();
    let observe = |filters: &[&str]| {
        let args = [&["observe", "-o", "jsonl", "--engine", socket.as_str()], filters].concat();
        Weir::start(&mut command(engine.host(), &args))
    };
    let weir = observe(&[]);
    let of_service = observe(&["--service", "shop/db", "--not", "--container", "cache"]);

    // One container was there before weir, the other comes later.
    let web = compose(&engine, "web", None, &["sleep", "1000"]);
    get(&engine, "shop-web-1", DB_ADDRESS);
    let closed = closed_request(&weir, "shop-web-1", DB_ADDRESS);
    for (end, name, service, id) in
        [("client", "shop-web-1", "shop/web", &web), ("server", "shop-db-1", "shop/db", &db)]
    {
        let end = &closed[end];
        assert_eq!((text(&end["container"]), text(&end["service"])), (name, service), "{closed}");
        assert_eq!((text(&end["container_id"]), text(&end["image"])), (id.as_str(), IMAGE), "{closed}");
    }
    assert_eq!((text(&closed["state"]), &closed["midstream"]), ("closed", &false.into()), "{closed}");
    assert!(number(&closed["received_bytes"]) > 100_000, "{closed}");
    assert_eq!(closed["interfaces"].as_array().map(Vec::len), Some(2), "{closed}");

    // A name changes.
    engine.docker(&["rename", "shop-web-1", "front"]);
    let mut renamed = Value::Null;
    wait_until(LIMIT, "the new name is in the records", || {
        get(&engine, "front", DB_ADDRESS);
        renamed = latest(&weir, DB_ADDRESS);
        renamed["client"]["container"] == "front"
    });
    assert_eq!(text(&renamed["client"]["service"]), "shop/web", "{renamed}");

    // A container that compose did not make, on the other network.
    engine.run("cache", &[], &server);
    engine.run("client", &[], &["sleep", "1000"]);
    let cache_address = engine.address("cache", "bridge").to_string();
    get(&engine, "client", &cache_address);
    let closed = closed_request(&weir, "client", &cache_address);
    assert_eq!(text(&closed["server"]["container"]), "cache");
    assert_eq!(closed["server"].get("service"), None, "{closed}");

    // One that stops: its flows end, and its address belongs to whoever gets it next.
    let before = weir.daemon.stdout().join("\n");
    engine.docker(&["exec", "--detach", "front", "sh", "-c", &format!("sleep 1000 | nc {DB_ADDRESS} 80")]);
    let open =
        weir.wait_for_record(|record| record["event"] == "open" && !before.contains(text(&record["id"])));
    assert_eq!(text(&open["client"]["container"]), "front", "{open}");
    engine.docker(&["rm", "--force", "shop-db-1"]);
    engine.docker(&["rm", "--force", "front"]);
    weir.wait_for_record(|record| record["event"] == "close" && record["id"] == open["id"]);
    engine.run("heir", &["--network", NETWORK, "--ip", DB_ADDRESS], &server);
    engine.run("visitor", &["--network", NETWORK], &["sleep", "1000"]);
    get(&engine, "visitor", DB_ADDRESS);
    let closed = closed_request(&weir, "visitor", DB_ADDRESS);
    assert_eq!(text(&closed["server"]["container"]), "heir", "{closed}");
    assert_eq!(closed["server"].get("service"), None, "{closed}");

    // The engine goes and comes back: weir counts on, says so, and follows again.
    engine.kill_dockerd();
    weir.daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains(&socket));
    engine.restart_dockerd();
    engine.run("late-server", &[], &server);
    engine.run("late", &[], &["sleep", "1000"]);
    let late_address = engine.address("late-server", "bridge").to_string();
    wait_until(LIMIT, "names come from the engine again", || {
        get(&engine, "late", &late_address);
        latest(&weir, &late_address)["client"]["container"] == "late"
    });

    // Filters by names that only the engine knows.
    let run = of_service.finish();
    assert!(!run.records.is_empty());
    for record in &run.records {
        assert!(
            record["server"]["service"] == "shop/db" || record["client"]["service"] == "shop/db",
            "{record}"
        );
    }
    assert_eq!(weir.finish().summary["lost"], serde_json::json!({}));

    let args = ["observe", "--engine", &socket, "--for", "1s", "--container", "no-such-thing"];
    let output = command(engine.host(), &args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-thing"));
}

/// The last of the records so far that end a request to `address`; null if there is none.
fn latest(weir: &Weir, address: &str) -> Value {
    let records = weir.daemon.stdout();
    let records = records.iter().rev().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    records.into_iter().find(|record| is_closed_request(record, address)).unwrap_or_default()
}

/// Docker keeps its networks apart: a redirect from one to the other gets no answer, and is warned of; but for
/// `weir run --accelerate`.
#[test]
fn root_docker_a_redirect_into_another_network() {
    require_root!();
    let engine = Engine::start();
    let bpffs = Bpffs::new();
    for (network, subnet) in [("front", "10.97.3.0/24"), ("back", "10.97.4.0/24")] {
        engine.docker(&["network", "create", "--subnet", subnet, network]);
    }
    for (name, network) in [("visitor", "front"), ("web", "front"), ("api", "back")] {
        engine.run(name, &["--network", network], &["httpd", "-f", "-p", "80"]);
    }
    let socket = engine.socket().display().to_string();
    let weir = |args: &[&str]| command_with_state(engine.host(), &bpffs, args);
    let run = |args: &[&str]| {
        let run = Daemon::start("weir run", &mut weir(&[&["run", "--engine", &socket], args].concat()));
        run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
        run
    };
    let redirect = || {
        let added = weir(&["redirect", "add", "--name", "over", "web:8080", "api:80"]).output().unwrap();
        let warnings = String::from_utf8_lossy(&added.stderr).into_owned();
        assert!(added.status.success(), "{warnings}");
        warnings
    };
    let fetch = |address: String| {
        let url = format!("http://{address}/bin/busybox");
        let args =
            ["exec", "visitor", "busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "/dev/null", &url];
        engine.command(&args).status().unwrap().success()
    };
    let asked = || format!("{}:8080", engine.address("web", "front"));

    let mut plain = run(&[]);
    let warnings = redirect();
    assert!(warnings.contains("in another network") && warnings.contains("--accelerate"), "{warnings}");
    assert!(!fetch(asked()), "Docker lets nothing pass");
    plain.stop(libc::SIGTERM, LIMIT);
    assert!(weir(&["redirect", "remove", "over"]).status().unwrap().success());

    let mut accelerated = run(&["--accelerate"]);
    assert_eq!(redirect(), "");
    assert!(fetch(asked()), "the rule is the permission");
    assert!(!fetch(engine.address("api", "back").to_string()), "for what is redirected, and nothing else");
    accelerated.stop(libc::SIGTERM, LIMIT);
    // It holds without the process, as rules do.
    assert!(fetch(asked()));
    assert!(weir(&["down"]).status().unwrap().success());
}
