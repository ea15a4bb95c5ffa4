//! What was measured, as tables: on the terminal and in docs/benchmarks.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;

/// Between these two lines of the page stands what `--markdown` writes.
const BEGIN: &str = "<!-- results: written by make bench -->";
const END: &str = "<!-- end of results -->";

/// One section of the results.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// How the numbers came about: one paragraph.
    pub(crate) note: String,
    /// The first column is text, the others are numbers.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// For the terminal.
    pub(crate) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
            cells.chain(self.columns.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (index, (cell, width)) in cells.zip(&widths).enumerate() {
                let _ = if index == 0 {
                    write!(line, "{cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            line.truncate(line.trim_end().len());
            line + "\n"
        };
        let mut text = format!("\n{}\n  {}\n\n", self.title, self.note);
        text += &line(&mut self.columns.iter().copied());
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n| {} |\n|", self.title, self.note, self.columns.join(" | "));
        for index in 0..self.columns.len() {
            text += if index == 0 { " --- |" } else { " ---: |" };
        }
        text.push('\n');
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// Puts the results in the place of those that the page has.
pub(crate) fn write_page(path: &Path, machine: &Machine, tables: &[Table]) -> Result<()> {
    let page = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut results = machine.markdown();
    for table in tables {
        results += "\n";
        results += &table.markdown();
    }
    let page = replace(&page, &results).with_context(|| format!("cannot write into {}", path.display()))?;
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts each table in the place of the page's section of the same title, or at
/// the end, with when it was measured.
pub(crate) fn write_sections(path: &Path, machine: &Machine, tables: &[Table]) -> Result<()> {
    let mut page = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for table in tables {
        let note = format!("{} Measured apart from the rest: {}.", table.note, machine.line());
        page = replace_section(&page, &Table { note, ..table.clone() })
            .with_context(|| format!("cannot write into {}", path.display()))?;
    }
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn replace_section(page: &str, table: &Table) -> Result<String> {
    let Some((before, after)) = page.split_once(END) else { bail!("it has no line '{END}'") };
    let heading = format!("### {}\n", table.title);
    let (earlier, later) = match before.split_once(&heading) {
        Some((earlier, old)) => {
            (earlier, old.find("\n### ").and_then(|next| old.get(next + 1..)).unwrap_or_default())
        }
        None => (before, ""),
    };
    let later = if later.is_empty() { "\n".to_owned() } else { format!("\n{later}") };
    Ok(format!("{earlier}{}{later}{END}{after}", table.markdown()))
}

fn replace(page: &str, results: &str) -> Result<String> {
    let Some((before, rest)) = page.split_once(BEGIN) else { bail!("it has no line '{BEGIN}'") };
    let Some((_, after)) = rest.split_once(END) else { bail!("it has no line '{END}'") };
    Ok(format!("{before}{BEGIN}\n\n{results}\n{END}{after}"))
}

/// `limit` and whether `value` is not above it.
pub(crate) fn at_most(value: f64, limit: f64, unit: &str) -> String {
    format!("≤ {limit}{unit}{}", if value <= limit { "" } else { ", missed" })
}

/// `limit` and whether `ratio` is not below it. `same` is the ratio of two runs
/// of the same: where it is further from 1 than the limit is, nothing can be said.
pub(crate) fn at_least(ratio: f64, limit: f64, same: f64) -> String {
    let verdict = match ratio {
        _ if (same - 1.0).abs() > (1.0 - limit).abs() => ", too noisy to say",
        ratio if ratio >= limit => "",
        _ => ", missed",
    };
    format!("≥ {limit:.2}{verdict}")
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            title: "Cost".into(),
            note: "By hand.".into(),
            columns: vec!["packet", "ns"],
            rows: vec![vec!["TCP".into(), "63".into()], vec!["other".into(), "1,000".into()]],
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        assert_eq!(table().text(), "\nCost\n  By hand.\n\npacket     ns\nTCP        63\nother   1,000\n");
    }

    #[test]
    fn a_page_keeps_what_is_around_the_results() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nend\n");
        let page = replace(&page, &table().markdown()).unwrap();
        assert!(
            page.starts_with("# Title\n\n<!-- results") && page.ends_with("results -->\n\nend\n"),
            "{page}"
        );
        assert!(page.contains("| TCP | 63 |\n") && !page.contains("old"), "{page}");
        assert_eq!(replace(&page, &table().markdown()).unwrap(), page);
        assert!(replace("# Title\n", "").is_err());
    }

    #[test]
    fn a_section_takes_the_place_of_its_predecessor() {
        let page = format!("{BEGIN}\n\n### Before\n\nold\n\n{END}\nend\n");
        let with = replace_section(&page, &table()).unwrap();
        assert!(
            with.contains("old\n\n### Cost\n\nBy hand.") && with.ends_with(&format!("|\n\n{END}\nend\n"))
        );
        assert_eq!(replace_section(&with, &table()).unwrap(), with);
        let last = Table { title: "After".into(), ..table() };
        let three = replace_section(&with, &last).unwrap();
        assert_eq!(replace_section(&three, &table()).unwrap(), three);
    }

    #[test]
    fn thousands_and_targets() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(at_most(70.0, 70.0, " ns"), "≤ 70 ns");
        assert_eq!(at_least(0.966, 0.97, 1.01), "≥ 0.97, missed");
        assert_eq!(at_least(0.97, 0.97, 0.98), "≥ 0.97");
        assert_eq!(at_least(1.1, 0.97, 1.05), "≥ 0.97, too noisy to say");
        assert_eq!([1.19, 1.2].map(|it| at_least(it, 1.2, 0.85)), ["≥ 1.20, missed", "≥ 1.20"]);
    }
}
