//! MariaDB, asked by its own client.

use std::fs::File;

use weir_testkit::{Topology, require_root};

use super::audit;
use super::servers::Server;
use crate::weir::text;

/// Statements, as weir tells them, and whether they succeed.
const STATEMENTS: [(&str, &str, bool); 7] = [
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
fn root_statements_are_those_of_the_script() {
    require_root!();
    let topology = Topology::with_containers(&["db", "shop"]);
    let (db, shop) = (topology.container("db"), topology.container("shop"));
    let server = Server::mariadb(db.namespace(), db.ipv4());
    let weir = audit(topology.host(), &["--protocol", "mysql"]);
    let script: String = STATEMENTS.iter().map(|(statement, _, _)| format!("{statement};\n")).collect();
    let host = format!("--host={}", db.ipv4());
    let arguments =
        ["--no-defaults", &host, "--user=shop", "--password=sesame", "--skip-ssl", "--force", "shop"];
    let script = server.folder.write("script.sql", &script);
    for _ in 0..5 {
        // Its status tells of the statements that fail.
        let script = File::open(&script).unwrap();
        shop.namespace().command("mariadb").args(arguments).stdin(script).output().unwrap();
    }
    let run = weir.finish();
    let found: Vec<(&str, bool)> = run
        .records
        .iter()
        .filter(|record| record["attributes"]["db.query.text"].is_string())
        .map(|record| (text(&record["attributes"]["db.query.text"]), record["ok"] == true))
        // What the client asks for itself.
        .filter(|(statement, _)| !statement.contains("@@"))
        .collect();
    let expected: Vec<(&str, bool)> =
        (0..5).flat_map(|_| STATEMENTS.iter().map(|(_, shown, ok)| (*shown, *ok))).collect();
    assert_eq!(found, expected, "{}", run.lines());
    assert_eq!(run.summary["lost"], serde_json::json!({}));
    assert!(!run.lines().contains("sesame"));
    server.stop();
}
