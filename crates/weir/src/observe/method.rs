//! How weir gets at the packets of this host.

use std::fs;

use weir_core::filter::NamePattern;
use weir_kernel::attach::{self, AttachError, Method};

use crate::cli::AttachChoice;

/// With TCX the kernel waits for all its processors when a program comes to a
/// hook and again when it goes: some 20 ms an interface each time, one after the
/// other, however many threads ask. That is 2 s for a hundred interfaces and
/// 40 s, start and end, for a thousand; a clsact filter takes 0.2 ms.
const TCX_INTERFACES: usize = 64;

/// What the user chose, or the best for this kernel and so many interfaces.
pub(crate) fn choose(choice: AttachChoice, wanted: &[NamePattern]) -> Result<Method, AttachError> {
    let best = match choice {
        AttachChoice::Tcx => return Ok(Method::Tcx),
        AttachChoice::Clsact => return Ok(Method::Clsact),
        AttachChoice::Auto => attach::probe()?,
    };
    // Of this process's network namespace. Unreadable: attaching will tell what is wrong.
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let many = interfaces_to_watch(&interfaces, wanted) > TCX_INTERFACES;
    Ok(if many { Method::Clsact } else { best })
}

/// So many at most: which of them lead to a container is not known yet.
fn interfaces_to_watch(interfaces: &str, wanted: &[NamePattern]) -> usize {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|pattern| pattern.matches(name));
    let names = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| is_wanted(name)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use jiff::Timestamp;

    const INTERFACES: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:    1234      12    0    0    0     0          0         0     1234      12    0    0
 veth0: 5000000000 1234    0    0    0     0          0         0        0       0    0    0
 veth1:       0       0    0    0    0     0          0         0        0       0    0    0
";

    fn count(interfaces: &str, arguments: &[&str]) -> usize {
        let cli = Cli::parse_from(["weir", "observe"].iter().chain(arguments));
        let Command::Observe(arguments) = cli.command else { panic!("another command") };
        let filter = arguments.filters.compile(Timestamp::now()).unwrap();
        interfaces_to_watch(interfaces, &filter.interface_globs().cloned().collect::<Vec<_>>())
    }

    #[test]
    fn interfaces_are_counted() {
        assert_eq!(count(INTERFACES, &[]), 3);
        assert_eq!(count("", &[]), 0);
        assert_eq!(count(INTERFACES, &["--interface", "veth*"]), 2);
        assert_eq!(count(INTERFACES, &["--interface", "lo", "--interface", "veth1"]), 2);
        assert_eq!(count(INTERFACES, &["--interface", "eth0"]), 0);
    }
}
