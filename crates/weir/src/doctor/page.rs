//! The report for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use weir_core::text::escape;

use super::{Attached, Report, Status};

/// Interfaces named per line; a host may have hundreds with the same programs.
const INTERFACES_SHOWN: usize = 4;

const STATUS_WIDTH: usize = 15;
const CHECK_WIDTH: usize = 18;

/// The whole text.
pub(super) fn page(report: &Report, color: bool) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut page, report, color);
    page
}

fn write_page(page: &mut String, report: &Report, color: bool) -> std::fmt::Result {
    for check in &report.checks {
        let (word, style) = status(check.status);
        let style = if color { style } else { Style::new() };
        let word = format!("{word:STATUS_WIDTH$}");
        writeln!(page, "{style}{word}{style:#}{:CHECK_WIDTH$}{}", check.check, escape(&check.found))?;
        for (what, text) in [("costs", &check.cost), ("to do", &check.advice)] {
            if let Some(text) = text {
                writeln!(page, "{:STATUS_WIDTH$}{:CHECK_WIDTH$}{what}: {}", "", "", escape(text))?;
            }
        }
    }
    writeln!(page)?;
    if let Some(attached) = &report.attached {
        write_attached(page, attached)?;
        writeln!(page)?;
    }
    let reduced = report.checks.iter().any(|check| check.status == Status::Reduced);
    let verdict = match (report.works, reduced) {
        (true, false) => "`weir observe` works here.",
        (true, true) => "`weir observe` works here, with less where it says so above.",
        (false, _) => "`weir observe` does not work here: see above.",
    };
    writeln!(page, "{verdict}")
}

fn status(status: Status) -> (&'static str, Style) {
    let (word, color) = match status {
        Status::Ok => ("ok", AnsiColor::Green),
        Status::Reduced => ("reduced", AnsiColor::Yellow),
        Status::NotPermitted => ("not permitted", AnsiColor::Red),
        Status::Missing => ("missing", AnsiColor::Red),
        Status::Failed => ("failed", AnsiColor::Red),
    };
    (word, color.on_default())
}

fn write_attached(page: &mut String, attached: &[Attached]) -> std::fmt::Result {
    let mut rows: Vec<(&Attached, Vec<&str>)> = Vec::new();
    for program in attached {
        match rows.iter_mut().find(|(row, _)| row.same_but_for_the_interface(program)) {
            Some((_, interfaces)) => interfaces.push(&program.interface),
            None => rows.push((program, vec![&program.interface])),
        }
    }
    if rows.is_empty() {
        return writeln!(page, "Nothing is attached to the interfaces here.");
    }
    writeln!(page, "Attached to the interfaces here:")?;
    for (program, interfaces) in rows {
        let how = match program.priority {
            Some(priority) => format!("{}, priority {priority}", program.method),
            None => program.method.clone(),
        };
        let whose = match program.owner {
            "weir" => " (weir's)",
            "pinned" => " (weir's, pinned)",
            "ended_weir" => " (of a weir that was killed)",
            _ => "",
        };
        let shown = interfaces.iter().take(INTERFACES_SHOWN).map(|name| escape(name)).collect::<Vec<_>>();
        let more = match interfaces.len().saturating_sub(INTERFACES_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let name = escape(&program.program);
        writeln!(page, "  {name}{whose}, {} ({how}): {}{more}", program.hook, shown.join(", "))?;
    }
    Ok(())
}

impl Attached {
    fn same_but_for_the_interface(&self, other: &Self) -> bool {
        let key =
            |one: &Self| (one.hook.clone(), one.method.clone(), one.priority, one.program.clone(), one.owner);
        key(self) == key(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    fn attached(interface: &str, program: &str) -> Attached {
        Attached {
            interface: interface.to_owned(),
            hook: "ingress".to_owned(),
            method: "clsact".to_owned(),
            priority: Some(7),
            program: program.to_owned(),
            program_id: Some(1),
            owner: "other",
        }
    }

    #[test]
    fn each_finding_says_what_it_costs_and_what_to_do() {
        let report = Report {
            works: false,
            checks: vec![
                Check::ok("kernel", "Linux 6.1"),
                Check::not_ok("permissions", Status::NotPermitted, "without CAP_BPF")
                    .cost("all")
                    .advice("sudo"),
            ],
            attached: Some(Vec::new()),
        };
        assert_eq!(
            page(&report, false),
            "ok             kernel            Linux 6.1\n\
             not permitted  permissions       without CAP_BPF\n\
             \x20                                costs: all\n\
             \x20                                to do: sudo\n\
             \nNothing is attached to the interfaces here.\n\
             \n`weir observe` does not work here: see above.\n"
        );
    }

    #[test]
    fn programs_at_many_interfaces_take_one_line() {
        let mut page = String::new();
        let many: Vec<_> = (0..9).map(|i| attached(&format!("veth{i}"), "cil_from_container")).collect();
        write_attached(&mut page, &many).unwrap();
        assert_eq!(
            page,
            "Attached to the interfaces here:\n  cil_from_container, ingress (clsact, priority 7): \
             veth0, veth1, veth2, veth3 and 5 more\n"
        );
    }

    #[test]
    fn names_cannot_reach_the_terminal_as_commands() {
        let mut page = String::new();
        write_attached(&mut page, &[attached("veth0", "\x1b[2J")]).unwrap();
        assert!(!page.contains('\x1b'), "{page}");
    }
}
