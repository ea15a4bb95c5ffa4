//! `weir down`: takes off what weirs have left on this host.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use weir_core::text::escape;
use weir_kernel::attach::{AttachedProgram, Removal, remove_ours, remove_pinned};

use crate::cli::DownArgs;
use crate::error::Error;

/// Runs the command.
///
/// # Errors
/// Not permitted, the kernel refused, or the output cannot be written.
pub fn run(arguments: &DownArgs) -> Result<ExitCode, Error> {
    let pins = arguments.state.pins();
    let mut removal = remove_pinned(&pins, arguments.force)?;
    removal.add(remove_ours(arguments.force, &pins)?);
    let mut stdout = io::stdout().lock();
    stdout.write_all(report(&removal).as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// One line for each interface.
fn report(removal: &Removal) -> String {
    let mut lines = String::new();
    for (interface, programs) in by_interface(&removal.removed) {
        let qdisc = match removal.qdiscs.contains(interface) {
            true => ", and the clsact qdisc that weir had made",
            false => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{}: removed {programs}{qdisc}", escape(interface));
    }
    for (interface, programs) in by_interface(&removal.left) {
        let _ = writeln!(lines, "{}: left {programs}", escape(interface));
    }
    if removal.state_removed {
        lines.push_str("Removed all rules, and the table of connections.\n");
    }
    if removal.state_left {
        lines.push_str(
            "Rules and connections were left, because a weir is running that keeps them: end it first. \
             `weir down --force` removes them at once; that weir then sees no packet any more.\n",
        );
    } else if !removal.left.is_empty() {
        lines.push_str(
            "What was left belongs to a weir that is running: it removes it when it ends. \
             `weir down --force` takes it off at once; that weir then sees no packet any more.\n",
        );
    } else if removal.removed.is_empty() && !removal.state_removed {
        lines.push_str("There is nothing of weir's on the interfaces here.\n");
    }
    lines
}

fn by_interface(programs: &[AttachedProgram]) -> BTreeMap<&String, String> {
    let mut lines = BTreeMap::<&String, String>::new();
    for program in programs {
        let line = lines.entry(&program.interface).or_default();
        let comma = if line.is_empty() { "" } else { ", " };
        let _ = write!(line, "{comma}{} ({}, {})", escape(&program.name), program.hook, program.method);
    }
    lines
}

#[cfg(test)]
mod tests {
    use weir_core::event::Hook;
    use weir_kernel::attach::{Method, Owner};

    use super::*;

    fn program(interface: &str, hook: Hook) -> AttachedProgram {
        AttachedProgram {
            ifindex: 3,
            interface: interface.to_owned(),
            hook,
            method: Method::Clsact,
            name: format!("weir_{hook}"),
            program_id: Some(1),
            priority: Some(7),
            owner: Owner::EndedWeir,
        }
    }

    #[test]
    fn one_line_an_interface() {
        let removal = Removal {
            removed: vec![program("veth1", Hook::Ingress), program("veth1", Hook::Egress)],
            qdiscs: vec!["veth1".to_owned()],
            left: vec![program("veth2", Hook::Ingress)],
            ..Removal::default()
        };
        let text = report(&removal);
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some(
                "veth1: removed weir_ingress (ingress, clsact), weir_egress (egress, clsact), and the clsact \
                 qdisc that weir had made"
            )
        );
        assert_eq!(lines.next(), Some("veth2: left weir_ingress (ingress, clsact)"));
        assert!(lines.next().unwrap().contains("--force"));
    }

    #[test]
    fn state_is_told_of() {
        let removed = Removal { state_removed: true, ..Removal::default() };
        assert_eq!(report(&removed), "Removed all rules, and the table of connections.\n");
        let left = Removal {
            left: vec![AttachedProgram { owner: Owner::Pinned, ..program("veth2", Hook::Ingress) }],
            state_left: true,
            ..Removal::default()
        };
        let text = report(&left);
        assert!(text.contains("veth2: left") && text.contains("end it first"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(report(&Removal::default()), "There is nothing of weir's on the interfaces here.\n");
    }
}
