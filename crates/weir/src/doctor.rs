//! `weir doctor`: what this host can do, what is missing, what that costs, and who else is attached where.
//!
//! What can be tried is tried: the programs are loaded, and attached to a device of a network namespace made for
//! it. The host's own interfaces are only looked at.

mod capabilities;
mod checks;
mod page;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use weir_kernel::attach::{self, AttachedProgram, Owner};

use crate::cli::{DoctorArgs, DoctorFormat};
use crate::error::Error;

/// How it is with something that `weir observe` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// `weir observe` works, with less.
    Reduced,
    /// It does not work: this process is not permitted.
    NotPermitted,
    /// It does not work: the kernel lacks something.
    Missing,
    /// It does not work, for another reason.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What was looked at.
    check: &'static str,
    status: Status,
    /// What was found.
    found: String,
    /// What is missing because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), cost: None, advice: None }
    }

    fn not_ok(check: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { status, ..Self::ok(check, found) }
    }

    fn cost(self, cost: impl Into<String>) -> Self {
        Self { cost: Some(cost.into()), ..self }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// A program at a hook of one interface.
#[derive(Debug, Clone, Serialize)]
struct Attached {
    interface: String,
    /// `ingress`: what the interface receives. `egress`: what is sent out of it.
    hook: String,
    /// `tcx` or `clsact`.
    method: String,
    /// Of a filter: those with a lower number run first.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    program: String,
    /// The kernel's number of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    program_id: Option<u32>,
    /// `other`, `weir`, `pinned`: weir's, and holds without a process, or `ended_weir`: left by one that was killed.
    owner: &'static str,
}

impl From<&AttachedProgram> for Attached {
    fn from(program: &AttachedProgram) -> Self {
        Self {
            interface: program.interface.clone(),
            hook: program.hook.to_string(),
            method: program.method.to_string().to_lowercase(),
            priority: program.priority,
            program: program.name.clone(),
            program_id: program.program_id,
            owner: match program.owner {
                Owner::Other => "other",
                Owner::Weir => "weir",
                Owner::EndedWeir => "ended_weir",
                Owner::Pinned => "pinned",
            },
        }
    }
}

/// All that is told.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether `weir observe` works here.
    works: bool,
    checks: Vec<Check>,
    /// Everything at the interfaces of this network namespace, in the order in which it runs; none if that
    /// cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<Vec<Attached>>,
}

impl Report {
    fn new(arguments: &DoctorArgs) -> Self {
        let pins = arguments.state.pins();
        let mut checks = checks::host(&pins);
        checks.push(checks::state(&pins));
        let (kernel_side, method) = checks::kernel_side();
        checks.extend(kernel_side);
        checks.push(checks::engine(&arguments.engine));
        let attached = match attach::survey_all(&pins) {
            Ok(attached) => {
                checks.extend(checks::neighbours(&attached, method));
                Some(attached.iter().map(Attached::from).collect())
            }
            Err(error) => {
                checks.push(checks::no_survey(&error));
                None
            }
        };
        let works = checks.iter().all(|check| matches!(check.status, Status::Ok | Status::Reduced));
        Self { works, checks, attached }
    }

    /// 0 `weir observe` works, 3 not permitted, 4 the kernel lacks something, 1 it fails otherwise. What is not
    /// permitted comes first, since it keeps the rest from being tried.
    fn exit_code(&self) -> u8 {
        let is = |status| self.checks.iter().any(|check| check.status == status);
        match () {
            () if is(Status::NotPermitted) => 3,
            () if is(Status::Missing) => 4,
            () if is(Status::Failed) => 1,
            () => 0,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The output cannot be written. What is wrong with the host is told in it, and by the exit code.
pub fn run(arguments: &DoctorArgs) -> Result<ExitCode, Error> {
    let report = Report::new(arguments);
    let stdout = io::stdout();
    let color = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match arguments.output {
        DoctorFormat::Text => page::page(&report, color),
        DoctorFormat::Json => serde_json::to_string_pretty(&report)
            .map(|json| json + "\n")
            .map_err(|error| Error::Output(error.into()))?,
    };
    let mut stdout = stdout.lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Output)?;
    Ok(ExitCode::from(report.exit_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[Status]) -> Report {
        let checks = statuses.iter().map(|&status| Check::not_ok("x", status, "y")).collect();
        Report { works: true, checks, attached: None }
    }

    #[test]
    fn the_exit_code_is_by_kind() {
        assert_eq!(report(&[Status::Ok, Status::Reduced]).exit_code(), 0);
        assert_eq!(report(&[Status::Missing, Status::NotPermitted]).exit_code(), 3);
        assert_eq!(report(&[Status::Ok, Status::Missing, Status::Failed]).exit_code(), 4);
        assert_eq!(report(&[Status::Failed]).exit_code(), 1);
    }

    #[test]
    fn json_says_only_what_is_known() {
        let report = Report {
            works: false,
            checks: vec![
                Check::ok("kernel", "6.1"),
                Check::not_ok("x", Status::NotPermitted, "no").cost("all"),
            ],
            attached: None,
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            json,
            r#"{"works":false,"checks":[{"check":"kernel","status":"ok","found":"6.1"},"#.to_owned()
                + r#"{"check":"x","status":"not_permitted","found":"no","cost":"all"}]}"#
        );
    }
}
