//! Databases, asked by their own clients: what weir tells is what the script says, statement for statement.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use weir_testkit::{Namespace, Topology, require_root};

use super::audit;
use super::servers::Server;
use crate::weir::text;

/// As the script has it, as weir tells it, and whether it succeeds.
type Statement = (&'static str, &'static str, bool);

const MYSQL: [Statement; 7] = [
    (
        "CREATE TABLE orders (id int PRIMARY KEY, name text)",
        "CREATE TABLE orders (id int PRIMARY KEY, name text)",
        true,
    ),
    ("INSERT INTO orders VALUES (1, 'open'), (2, 'x')", "INSERT INTO orders VALUES (?, ?), (?, ?)", true),
    ("SELECT name FROM orders WHERE id = 1", "SELECT name FROM orders WHERE id = ?", true),
    ("SELECT name FROM nowhere", "SELECT name FROM nowhere", false),
    ("INSERT INTO orders VALUES (1, 'again')", "INSERT INTO orders VALUES (?, ?)", false),
    ("SELECT seq FROM seq_1_to_5000", "SELECT seq FROM seq_1_to_5000", true),
    ("DROP TABLE orders", "DROP TABLE orders", true),
];

#[test]
fn root_statements_of_mariadb() {
    require_root!();
    let client = |shop: &Namespace, server: &Server, script: &Path| {
        let host = format!("--host={}", server.address.ip());
        let arguments =
            ["--no-defaults", &host, "--user=shop", "--password=sesame", "--skip-ssl", "--force", "shop"];
        // Its status tells of the statements that fail.
        shop.command("mariadb").args(arguments).stdin(File::open(script).unwrap()).output().unwrap();
    };
    are_those_of_the_script("mysql", Server::mariadb, client, &MYSQL);
}

const POSTGRESQL: [Statement; 8] = [
    (
        "CREATE TABLE orders (id int PRIMARY KEY, name text)",
        "CREATE TABLE orders (id int PRIMARY KEY, name text)",
        true,
    ),
    ("INSERT INTO orders VALUES (1, 'sesame'), (2, 'x')", "INSERT INTO orders VALUES (?, ?), (?, ?)", true),
    ("SELECT name FROM orders WHERE id = 1", "SELECT name FROM orders WHERE id = ?", true),
    ("SELECT name FROM nowhere", "SELECT name FROM nowhere", false),
    ("UPDATE orders SET name = 'y' WHERE id > 0", "UPDATE orders SET name = ? WHERE id > ?", true),
    ("INSERT INTO orders VALUES (1, 'again')", "INSERT INTO orders VALUES (?, ?)", false),
    ("SELECT count(*) FROM generate_series(1, 5000)", "SELECT count(*) FROM generate_series(?, ?)", true),
    ("DROP TABLE orders", "DROP TABLE orders", true),
];

#[test]
fn root_statements_of_postgresql() {
    require_root!();
    let client = |shop: &Namespace, server: &Server, script: &Path| {
        let url = format!("postgresql://shop@{}/postgres?sslmode=disable", server.address);
        let psql = shop.command("psql").args(["-q", "-f"]).arg(script).arg(url).output().unwrap();
        assert!(psql.status.success(), "{psql:?}");
    };
    are_those_of_the_script("postgresql", Server::postgresql, client, &POSTGRESQL);
}

/// How often the script is run.
const RUNS: usize = 5;

/// Has `client` run the script by a server of `protocol`. "sesame" is a secret.
fn are_those_of_the_script(
    protocol: &str,
    server: fn(&Namespace, Ipv4Addr) -> Server,
    client: impl Fn(&Namespace, &Server, &Path),
    statements: &[Statement],
) {
    let topology = Topology::with_containers(&["db", "shop"]);
    let (db, shop) = (topology.container("db"), topology.container("shop"));
    let server = server(db.namespace(), db.ipv4());
    let weir = audit(topology.host(), &["--protocol", protocol]);
    let script: String = statements.iter().map(|(statement, _, _)| format!("{statement};\n")).collect();
    let script = server.folder.write("script.sql", &script);
    for _ in 0..RUNS {
        client(shop.namespace(), &server, &script);
    }
    let run = weir.finish();
    let found: Vec<(&str, bool)> = run
        .records
        .iter()
        .filter(|record| record["attributes"]["db.query.text"].is_string())
        .map(|record| {
            (text(&record["attributes"]["db.query.text"]).trim_end_matches(';'), record["ok"] == true)
        })
        // What MariaDB's client asks for itself.
        .filter(|(statement, _)| !statement.contains("@@"))
        .collect();
    let told = statements.iter().map(|(_, told, ok)| (*told, *ok));
    let expected: Vec<(&str, bool)> = (0..RUNS).flat_map(|_| told.clone()).collect();
    assert_eq!(found, expected, "{}", run.lines());
    assert_eq!(run.summary["lost"], serde_json::json!({}));
    assert!(!run.lines().contains("sesame"));
    server.stop();
}
