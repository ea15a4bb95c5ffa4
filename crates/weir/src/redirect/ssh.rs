//! The SSH connection by which the user sits here.

use std::fs;

use crate::cli::AddArgs;

/// More processes than stand between sshd and a command.
const ANCESTORS_MAX: usize = 64;

const VARIABLE: &[u8] = b"SSH_CONNECTION=";

/// What sshd says of it in the environment. `sudo` takes that away, and then it is found with who called `sudo`.
pub(super) fn connection(arguments: &AddArgs) -> Option<String> {
    match &arguments.ssh_connection {
        Some(known) => Some(known.clone()),
        None => of_ancestors(),
    }
}

fn of_ancestors() -> Option<String> {
    let mut process = std::os::unix::process::parent_id();
    for _ in 0..ANCESTORS_MAX {
        // It may have ended, and not every user may look.
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if let Some(value) = variables.find_map(|variable| variable.strip_prefix(VARIABLE)) {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        process = parent(process).filter(|parent| *parent > 1)?;
    }
    None
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before stands in parentheses, and may have some of its own.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent(u32::MAX), None);
    }
}
