//! Which of the capabilities that weir uses this process has.

/// A capability: its number in the kernel, its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capability(u8, &'static str);

pub(super) const NET_ADMIN: Capability = Capability(12, "CAP_NET_ADMIN");
pub(super) const SYS_PTRACE: Capability = Capability(19, "CAP_SYS_PTRACE");
pub(super) const SYS_ADMIN: Capability = Capability(21, "CAP_SYS_ADMIN");
pub(super) const PERFMON: Capability = Capability(38, "CAP_PERFMON");
pub(super) const BPF: Capability = Capability(39, "CAP_BPF");

impl Capability {
    pub(super) fn name(self) -> &'static str {
        self.1
    }
}

/// A process's effective capabilities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    /// Reads `/proc/self/status`; none if there is no /proc.
    pub(super) fn of_this_process() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether it has that one, or CAP_SYS_ADMIN where the kernel takes that for it.
    pub(super) fn has(self, capability: Capability) -> bool {
        let held = |Capability(number, _)| self.0 & (1 << number) != 0;
        held(capability) || ([PERFMON, BPF].contains(&capability) && held(SYS_ADMIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read() {
        let all = Capabilities::parse("Name:\tweir\nCapInh:\t0\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n");
        assert!([NET_ADMIN, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF].iter().all(|&one| all.has(one)));
        // As given by: setcap cap_bpf,cap_net_admin,cap_perfmon+ep
        let few = Capabilities::parse("CapEff:\t000000c000001000\n");
        assert!(few.has(BPF) && few.has(NET_ADMIN) && few.has(PERFMON));
        assert!(!few.has(SYS_ADMIN) && !few.has(SYS_PTRACE));
        assert!(!Capabilities::parse("").has(BPF));
    }

    #[test]
    fn sys_admin_stands_for_the_newer_ones() {
        let old = Capabilities::parse("CapEff:\t0000000000200000\n");
        assert!(old.has(BPF) && old.has(PERFMON) && !old.has(NET_ADMIN));
    }
}
