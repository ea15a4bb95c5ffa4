//! Who tells of requests while they are made.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use weir_testkit::{Daemon, Stream, Topology};

use crate::Plan;
use crate::observer::start_audit;
use crate::process::{cpu_of_ended_children, cpu_time, resident, with_children};
use crate::told;
use crate::workload::{Folder, Requests};

/// How long one may take to start, and to end when the load has ended: tshark
/// goes on with what it has not looked at yet.
const LIMIT: Duration = Duration::from_secs(60);

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watcher {
    Nobody,
    /// Shows how far two runs of the same lie apart: what is within it is noise.
    NobodyAgain,
    Weir,
    /// Keeps packets: who made which request is for later.
    Tcpdump,
    Tshark,
}

impl Watcher {
    pub(super) const ALL: [Self; 5] =
        [Self::Nobody, Self::NobodyAgain, Self::Weir, Self::Tcpdump, Self::Tshark];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody | Self::NobodyAgain => "nobody",
            Self::Weir => "weir audit",
            Self::Tcpdump => "tcpdump -w",
            Self::Tshark => "tshark",
        }
    }

    /// Starts it and waits until it watches.
    pub(super) fn start(
        self,
        plan: &Plan,
        topology: &Topology,
        folder: &Folder,
        workload: &dyn Requests,
    ) -> Result<Option<Watch>> {
        let host = topology.host();
        let device = topology.container("server").host_veth();
        let output = folder.path().join(self.name());
        let daemon = match self {
            Self::Nobody | Self::NobodyAgain => return Ok(None),
            Self::Weir => start_audit(host, &plan.weir, File::create(&output)?),
            Self::Tcpdump => {
                let mut command = host.command("tcpdump");
                command.args(["-i", device, "-n", "-w"]).arg(&output);
                let daemon = Daemon::start("tcpdump", &mut command);
                daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("listening on"));
                daemon
            }
            Self::Tshark => {
                let mut command = host.command("tshark");
                command.args(["-i", device, "-n", "-T", "fields", "-E", "occurrence=a"]);
                // It knows Redis by one port only.
                command.args(["-d", "tcp.port==6379-6394,resp"]);
                let field = workload.tshark_field();
                // Its capture goes through a file in this folder.
                command.args(["-Y", field, "-e", field]).env("TMPDIR", folder.path());
                let daemon = Daemon::start_with_stdout("tshark", &mut command, File::create(&output)?);
                daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("Capture started"));
                daemon
            }
        };
        let processes = with_children(daemon.id());
        let begun_cpu = processes.iter().map(|id| cpu_time(*id)).sum::<Result<_>>()?;
        Ok(Some(Watch { watcher: self, daemon, processes, begun_cpu, output }))
    }
}

/// A running watcher.
pub(super) struct Watch {
    watcher: Watcher,
    daemon: Daemon,
    processes: Vec<u32>,
    /// What it had used before the load began.
    begun_cpu: Duration,
    output: PathBuf,
}

/// What a watcher found, and used for it.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    /// Requests that there were.
    pub(super) served: u64,
    /// Requests that it told of; none, if it tells packets only.
    pub(super) told: Option<u64>,
    /// Of them: with their answers, and seen whole. Only weir says so.
    pub(super) whole: Option<u64>,
    /// What it lost, as it says itself: packets, or pieces of payload.
    pub(super) lost: u64,
    /// Until it has ended: what it had not looked at when the load ended is in it.
    pub(super) cpu_s: f64,
    pub(super) peak_kib: u64,
}

impl Watch {
    /// Ends it after a load of `served` requests. Those of operations that stand in `aside` are not
    /// among them.
    pub(super) fn stop(mut self, served: u64, aside: &[&str]) -> Result<Usage> {
        let peak_kib = self.processes.iter().map(|id| Ok(resident(*id)?.peak_kib)).sum::<Result<u64>>()?;
        let before = cpu_of_ended_children();
        let status = self.daemon.stop(libc::SIGINT, LIMIT);
        let cpu = cpu_of_ended_children().saturating_sub(before).saturating_sub(self.begun_cpu);
        let messages = self.daemon.stderr();
        if !status.success() {
            bail!("{} ended with {status}: {}", self.watcher.name(), messages.join("\n"));
        }
        let mut dropped = messages.iter().find_map(|line| dropped(line)).unwrap_or(0);
        let (mut told, mut whole) = (None, None);
        match self.watcher {
            Watcher::Weir => {
                let by_weir = told::by_weir(&self.output, aside)?;
                dropped += by_weir.lost;
                (told, whole) = (Some(by_weir.requests), Some(by_weir.whole));
            }
            Watcher::Tshark => told = Some(told::by_tshark(&self.output)?),
            Watcher::Nobody | Watcher::NobodyAgain | Watcher::Tcpdump => {}
        }
        std::fs::remove_file(&self.output)?;
        Ok(Usage { served, told, whole, lost: dropped, cpu_s: cpu.as_secs_f64(), peak_kib })
    }
}

/// `1224 packets dropped by kernel` (tcpdump), `3 packets dropped from veth-server` (tshark).
fn dropped(line: &str) -> Option<u64> {
    let (count, _) = line.split_once(" packet").filter(|(_, rest)| rest.contains(" dropped "))?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_dropped_is_found() {
        assert_eq!(super::dropped("1224 packets dropped by kernel"), Some(1224));
        assert_eq!(super::dropped("1 packet dropped from veth-server"), Some(1));
        assert_eq!(super::dropped("37709 packets captured"), None);
    }
}
