//! Tests that need root: run where it is there, and say so loudly where not.

use std::fs;
use std::io::Write;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Begins a test that needs root: where root is missing it says so and returns
/// from the test; where the test runs it leaves the test's name in the file that
/// the environment variable `WEIR_ROOT_TESTS_RAN` names, so that whoever runs
/// the tests can tell that some of them ran. The name of such a test begins
/// with `root_`.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::has_root(std::thread::current().name().unwrap_or("a test without a name")) {
            return;
        }
    };
}

/// Whether the test `name` may run: effective user id 0 with the capabilities
/// NET_ADMIN, SYS_ADMIN and BPF. Says or records it as [`require_root!`] tells.
#[must_use]
pub fn has_root(name: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status is readable");
    if !is_root(&status) {
        // Not eprintln!: the test harness would keep it to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED (needs root): {name}");
        return false;
    }
    if let Some(path) = std::env::var_os("WEIR_ROOT_TESTS_RAN") {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|e| panic!("cannot append to {} (WEIR_ROOT_TESTS_RAN): {e}", path.display()));
        // One write: tests of several processes append to it at once.
        file.write_all(format!("{name}\n").as_bytes()).expect("WEIR_ROOT_TESTS_RAN can be written");
    }
    true
}

fn is_root(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective_uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1));
    let capabilities =
        field("CapEff:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    effective_uid == Some("0")
        && [CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF].iter().all(|bit| capabilities & (1 << bit) != 0)
}

#[cfg(test)]
mod tests {
    use super::is_root;

    #[test]
    fn needs_id_and_capabilities() {
        assert!(is_root("Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!is_root("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t000001ffffffffff\n"));
        // The usual set of an unprivileged container.
        assert!(!is_root("Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n"));
        assert!(!is_root(""));
    }
}
