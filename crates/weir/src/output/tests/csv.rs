//! CSV: columns, cells, and what spreadsheets would make of them.

use super::*;

/// The rows of what was written, read back.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut reader =
        ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn csv_has_the_columns_of_the_page() {
    const PAGE: &str = include_str!("../../../../../docs/records.md");
    let fields = |heading: &str| -> Vec<&str> {
        let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
        let table = section.split("\n#").next().unwrap();
        table
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|line| line.split('`').next().unwrap())
            .collect()
    };
    let ends = fields("endpoints");
    for (kind, record) in [
        ("flow", Record::Flow(query().into())),
        ("packet", Record::Packet(packet().into())),
        ("request", Record::Request(Box::new(request()))),
        ("stats", Record::Stats(Box::new(super::stats::stats()))),
    ] {
        let expected: Vec<String> = fields(kind)
            .into_iter()
            .flat_map(|field| match field {
                "client" | "server" | "source" | "destination" => {
                    ends.iter().map(|part| format!("{field}_{part}")).collect()
                }
                _ => vec![field.to_owned()],
            })
            .collect();
        let rows = rows(&written(Format::Csv, false, &[record]));
        assert_eq!((rows.len(), &rows[0]), (2, &expected), "{kind}");
        assert_eq!((rows[1].len(), &*rows[1][0]), (expected.len(), kind));
    }
}

#[test]
fn csv_cells_are_what_json_says() {
    let rows = rows(&written(Format::Csv, false, &[requests(), requests(), flows()].concat()));
    let cell = |row: usize, column: &str| {
        let index = rows[0].iter().position(|name| name == column).unwrap();
        rows[row][index].clone()
    };
    let value = serde_json::to_value(&requests()[0]).unwrap();
    for column in ["time", "flow", "protocol", "operation", "target", "status"] {
        assert_eq!(cell(1, column), value[column].as_str().unwrap(), "{column}");
    }
    assert_eq!(cell(1, "client_port"), value["client"]["port"].to_string());
    assert_eq!(cell(1, "ok"), value["ok"].to_string());
    assert_eq!(cell(1, "request_bytes"), value["request_bytes"].to_string());
    let attributes: serde_json::Value = serde_json::from_str(&cell(1, "attributes")).unwrap();
    assert_eq!(attributes, value["attributes"]);
    let headers = rows.iter().filter(|row| row[0] == "kind").count();
    assert_eq!(headers, 2, "one a kind");
}

#[test]
fn csv_holds_no_formula_and_breaks_no_row() {
    for (hostile, cell) in [
        ("=HYPERLINK(\"http://evil\",\"x\")", "'=HYPERLINK(\"http://evil\",\"x\")"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "\\x09=1"),
        ("a\",=1\r\n=2", "a\",=1\\x0d\\x0a=2"),
        ("/a=b", "/a=b"),
    ] {
        let request = RequestRecord { target: Some(hostile.into()), ..request() };
        let text = written(Format::Csv, false, &[Record::Request(Box::new(request))]);
        assert_eq!(text.lines().count(), 2, "{text}");
        let rows = rows(&text);
        let column = rows[0].iter().position(|name| name == "target").unwrap();
        assert_eq!(rows[1][column], cell);
    }
}
