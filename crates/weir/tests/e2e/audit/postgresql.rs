//! PostgreSQL, asked by psql.

use weir_testkit::{Topology, require_root};

use super::audit;
use super::servers::Server;
use crate::weir::text;

/// Statements, as weir tells them, and whether they succeed.
const STATEMENTS: [(&str, &str, bool); 8] = [
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
fn root_statements_are_those_of_the_script() {
    require_root!();
    let topology = Topology::with_containers(&["db", "shop"]);
    let (db, shop) = (topology.container("db"), topology.container("shop"));
    let server = Server::postgresql(db.namespace(), db.ipv4());
    let weir = audit(topology.host(), &["--protocol", "postgresql"]);
    let script: String = STATEMENTS.iter().map(|(statement, _, _)| format!("{statement};\n")).collect();
    let script = server.folder.write("script.sql", &script);
    let url = format!("postgresql://shop@{}/postgres?sslmode=disable", server.address);
    for _ in 0..5 {
        let psql =
            shop.namespace().command("psql").args(["-q", "-f"]).arg(&script).arg(&url).output().unwrap();
        assert!(psql.status.success(), "{psql:?}");
    }
    let run = weir.finish();
    let found: Vec<(&str, bool)> = run
        .records
        .iter()
        .filter(|record| record["attributes"]["db.query.text"].is_string())
        .map(|record| {
            (text(&record["attributes"]["db.query.text"]).trim_end_matches(';'), record["ok"] == true)
        })
        .collect();
    let expected: Vec<(&str, bool)> =
        (0..5).flat_map(|_| STATEMENTS.iter().map(|(_, shown, ok)| (*shown, *ok))).collect();
    assert_eq!(found, expected, "{}", run.lines());
    assert_eq!(run.summary["lost"], serde_json::json!({}));
    assert!(!run.lines().contains("sesame"));
    server.stop();
}
