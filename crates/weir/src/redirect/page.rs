//! Rules as people read them.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use weir_core::redirect::{Ports, SLOTS};
use weir_core::text::{self, escape};

use super::request::{Answer, RuleStatus, TargetStatus};
use crate::cli::{RedirectCommand, RuleFormat};
use crate::error::Error;

/// What is printed for an answer; `now` is what ends of rules are counted from.
///
/// # Errors
/// It cannot be written as JSON.
pub(super) fn print(command: &RedirectCommand, answer: &Answer, now: Timestamp) -> Result<String, Error> {
    Ok(match answer {
        Answer::Added(rule, _) => {
            let dry_run = matches!(command, RedirectCommand::Add(arguments) if arguments.dry_run);
            added(rule, dry_run)
        }
        Answer::Rules(rules) if format(command) == RuleFormat::Json => json(rules)?,
        Answer::Rules(rules) => table(rules, now),
        Answer::Rule(rule) if format(command) == RuleFormat::Json => json(rule)?,
        Answer::Rule(rule) => page(rule, now),
        Answer::Removed(names) if names.is_empty() => "There are no rules.\n".to_owned(),
        Answer::Removed(names) => {
            names.iter().fold(String::new(), |lines, name| lines + "Removed " + name + ".\n")
        }
    })
}

fn format(command: &RedirectCommand) -> RuleFormat {
    match command {
        RedirectCommand::List(arguments) => arguments.output,
        RedirectCommand::Show(arguments) => arguments.output,
        RedirectCommand::Add(_) | RedirectCommand::Remove(_) => RuleFormat::Table,
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::System { action: "cannot write rules as JSON", source: error.into() })?;
    Ok(text + "\n")
}

fn added(rule: &RuleStatus, dry_run: bool) -> String {
    let what = format!("{} ⇒ {}", rule.asked, rule.target);
    let first = match dry_run {
        true => format!("{}: {what} would be added; nothing was changed.\n", rule.name),
        false => format!("{}: {what}\n", rule.name),
    };
    escape(first.trim_end()).into_owned() + "\n" + &addresses(rule)
}

/// One line for each address that a rule stands for.
fn addresses(rule: &RuleStatus) -> String {
    let mut lines = String::new();
    for address in &rule.addresses {
        let targets: Vec<String> =
            address.targets.iter().map(|one| target(one, rule.asked.ports, address.targets.len())).collect();
        let targets = if targets.is_empty() { "nobody: refused".to_owned() } else { targets.join(", ") };
        let from = place(address.address, rule.asked.ports);
        let is_virtual = if address.is_virtual { " (virtual)" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "  {from}{is_virtual} ⇒ {targets}");
    }
    lines
}

/// `asked`: the rule's ports, of which a range goes to the range that begins at the target's port, if it has one.
fn target(target: &TargetStatus, asked: Option<Ports>, count: usize) -> String {
    let ports = asked.and_then(|asked| match target.port {
        None => Some(asked),
        Some(first) => asked.from(first),
    });
    let place = place(target.address, ports);
    match count {
        1 => place,
        _ => format!("{place} ({} %)", (target.slots * 100 + SLOTS / 2) / SLOTS),
    }
}

fn place(address: IpAddr, ports: Option<Ports>) -> String {
    match (address, ports) {
        (address, None) => address.to_string(),
        (IpAddr::V6(address), Some(ports)) => format!("[{address}]:{ports}"),
        (address, Some(ports)) => format!("{address}:{ports}"),
    }
}

const COLUMNS: [&str; 9] =
    ["NAME", "MATCH", "TARGET", "FROM", "PROTOCOL", "HITS", "LIVE", "BYTES", "ENDS IN"];

fn table(rules: &[RuleStatus], now: Timestamp) -> String {
    if rules.is_empty() {
        return "There are no rules.\n".to_owned();
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(rules.iter().map(|rule| {
        [
            rule.name.to_string(),
            rule.asked.to_string(),
            rule.target.to_string(),
            rule.from.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            rule.protocol.clone(),
            rule.hits.to_string(),
            rule.live_connections.to_string(),
            text::bytes(rule.bytes),
            ends_in(rule, now),
        ]
        .map(|cell| escape(&cell).into_owned())
    }));
    let widths = std::array::from_fn::<usize, 9, _>(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut lines = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push_str(cells.join("  ").trim_end());
        lines.push('\n');
    }
    for rule in rules {
        let of_now = rule.warnings.iter().filter(|concern| concern.is_of_now());
        for note in of_now.map(ToString::to_string).chain(refusals(rule)) {
            let _ = writeln!(lines, "{}: {}", rule.name, escape(&note));
        }
    }
    lines
}

/// Connections that were not redirected.
fn refusals(rule: &RuleStatus) -> impl Iterator<Item = String> {
    rule.refused.iter().map(|(reason, count)| {
        let meaning = match reason.as_str() {
            "no_target" => "new connections refused, as no target was running",
            "no_port" => "new connections refused, as the server had too many from these clients",
            "flows_full" => "new connections refused, as the flow table was full (--max-flows)",
            _ => "new connections refused, as the table of translations was full",
        };
        format!("{meaning}: {}", text::count(*count))
    })
}

fn ends_in(rule: &RuleStatus, now: Timestamp) -> String {
    let Some(expires) = rule.expires else { return "-".to_owned() };
    let left = expires.duration_since(now).as_millis_f64();
    text::duration_ms(left.max(0.0))
}

fn page(rule: &RuleStatus, now: Timestamp) -> String {
    let mut lines = format!("{}\n", rule.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(lines, "  {name:<12}{}", escape(&value));
    };
    line("match", rule.asked.to_string());
    line("target", rule.target.to_string());
    line("protocol", rule.protocol.clone());
    if let Some(from) = &rule.from {
        line("from", from.to_string());
    }
    if let Some(source) = &rule.source {
        line("source", source.to_string());
    }
    line("added", rule.added.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if rule.expires.is_some() {
        line("ends in", ends_in(rule, now));
    }
    line("hits", rule.hits.to_string());
    line("live", format!("{} connections", rule.live_connections));
    line("bytes", text::bytes(rule.bytes));
    for note in rule.warnings.iter().map(ToString::to_string).chain(refusals(rule)) {
        line("note", note);
    }
    lines + &addresses(rule)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_core::redirect::{Absence, Concern};

    use super::super::request::AddressStatus;
    use super::*;

    fn rule() -> RuleStatus {
        let target =
            |text: &str, slots| TargetStatus { address: text.parse().unwrap(), port: Some(80), slots };
        RuleStatus {
            name: "canary".parse().unwrap(),
            protocol: "tcp".into(),
            from: Some("shop/web".parse().unwrap()),
            asked: "web:8080".parse().unwrap(),
            target: "web:80=9,api:80=1".parse().unwrap(),
            source: Some("10.9.9.9".parse().unwrap()),
            added: Timestamp::UNIX_EPOCH,
            expires: Some("1970-01-01T01:00:00Z".parse().unwrap()),
            addresses: vec![AddressStatus {
                address: "fd00::2".parse().unwrap(),
                is_virtual: true,
                targets: vec![target("fd00::2", 226), target("fd00::3", 25)],
            }],
            warnings: Vec::new(),
            hits: 1234,
            bytes: 18_400,
            refused: [("no_target".to_owned(), 2), ("translations_full".to_owned(), 1)].into(),
            live_connections: 3,
        }
    }

    #[test]
    fn a_rule_is_a_line_of_the_table_and_what_is_wrong_one_more() {
        let text = table(&[rule()], Timestamp::UNIX_EPOCH);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "NAME    MATCH     TARGET             FROM      PROTOCOL  HITS  LIVE  BYTES    ENDS IN",
                "canary  web:8080  web:80=9,api:80=1  shop/web  tcp       1234  3     18.4 kB  1 h 0 m",
                "canary: new connections refused, as no target was running: 2",
                "canary: new connections refused, as the table of translations was full: 1",
            ]
        );
        let absence = Absence::NotRunning;
        let passing = Concern::MatchDown { name: "web".into(), absence };
        let lasting = Concern::HostAddress { address: "fd00::2".parse().unwrap() };
        let nobody = RuleStatus { warnings: vec![passing, lasting], refused: [].into(), ..rule() };
        let text = table(std::slice::from_ref(&nobody), Timestamp::UNIX_EPOCH);
        let note = "canary: web is not running; until it runs, the rule has no effect\n";
        assert!(text.ends_with(note), "{text}");
        let text = page(&nobody, Timestamp::UNIX_EPOCH);
        assert!(text.contains("note        web is not running") && text.contains("is this host's"), "{text}");
        assert_eq!(table(&[], Timestamp::UNIX_EPOCH), "There are no rules.\n");
    }

    #[test]
    fn a_page_tells_where_connections_go() {
        let text = page(&rule(), Timestamp::UNIX_EPOCH);
        assert!(
            text.ends_with("[fd00::2]:8080 (virtual) ⇒ [fd00::2]:80 (90 %), [fd00::3]:80 (10 %)\n"),
            "{text}"
        );
        for line in [
            "from        shop/web",
            "source      10.9.9.9",
            "live        3 connections",
            "bytes       18.4 kB",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let refusing =
            AddressStatus { targets: Vec::new(), is_virtual: false, ..rule().addresses[0].clone() };
        let text = page(&RuleStatus { addresses: vec![refusing], ..rule() }, Timestamp::UNIX_EPOCH);
        assert!(text.ends_with("[fd00::2]:8080 ⇒ nobody: refused\n"), "{text}");
    }

    #[test]
    fn every_field_is_on_the_page_of_redirects() {
        const PAGE: &str = include_str!("../../../../docs/redirect.md");
        let (_, section) = PAGE.split_once("\n## As JSON\n").unwrap();
        let documented: BTreeSet<String> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
            .flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').to_owned()))
            .collect();
        let json = serde_json::to_value(rule()).unwrap();
        let fields: BTreeSet<String> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, documented);
        for part in ["address", "virtual", "targets"] {
            assert!(json["addresses"][0].get(part).is_some() && section.contains(&format!("`{part}`")));
        }
        for part in ["address", "port", "slots"] {
            assert!(json["addresses"][0]["targets"][0].get(part).is_some());
        }
    }
}
