//! What watches the traffic while it is measured: nobody, weir, or tcpdump.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weir_testkit::{Daemon, Namespace, Stream};

/// How long weir may take to attach, and to end: a thousand interfaces take it
/// some time.
const LIMIT: Duration = Duration::from_secs(120);

/// `weir observe` in `namespace`. The machine's own container engine is none of
/// its business there.
pub(crate) fn weir_command(namespace: &Namespace, weir: &Path) -> Command {
    let mut command = namespace.command(weir);
    command.args(["observe", "-o", "jsonl", "--engine", "none"]);
    command
}

/// Waits until weir has attached to what there is.
pub(crate) fn wait_until_attached(weir: &Daemon) -> String {
    weir.wait_for_line(Stream::Err, LIMIT, |line| {
        line.starts_with("weir: watching") || line.starts_with("weir: no container")
    })
}

/// weir with its records thrown away.
pub(crate) fn start_weir(namespace: &Namespace, weir: &Path) -> Result<Daemon> {
    let daemon =
        Daemon::start_with_stdout("weir", &mut weir_command(namespace, weir), File::create("/dev/null")?);
    wait_until_attached(&daemon);
    Ok(daemon)
}

/// `weir audit` with its records written to `output`.
pub(crate) fn start_audit(namespace: &Namespace, weir: &Path, output: File) -> Daemon {
    let mut command = namespace.command(weir);
    command.args(["audit", "-o", "jsonl", "--engine", "none"]);
    let daemon = Daemon::start_with_stdout("weir", &mut command, output);
    wait_until_attached(&daemon);
    daemon
}

/// What weir's users would otherwise run.
pub(crate) fn start_tcpdump(namespace: &Namespace) -> Daemon {
    let mut command = namespace.command("tcpdump");
    command.args(["-i", "any", "-w", "/dev/null"]);
    let daemon = Daemon::start("tcpdump", &mut command);
    daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("listening on"));
    daemon
}

/// Ends either of them as Ctrl-C does.
pub(crate) fn stop(mut daemon: Daemon) -> Result<()> {
    let status = daemon.stop(libc::SIGINT, LIMIT);
    if !status.success() {
        bail!("ended with {status}: {}", daemon.stderr().join("\n"));
    }
    Ok(())
}

/// weir with its records counted as they come.
pub(crate) struct CountedWeir {
    pub(crate) daemon: Daemon,
    opened: Arc<AtomicU64>,
    counter: JoinHandle<Option<String>>,
}

impl CountedWeir {
    /// Starts it and waits until it has attached.
    pub(crate) fn start(namespace: &Namespace, weir: &Path) -> Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        let daemon = Daemon::start_with_stdout("weir", &mut weir_command(namespace, weir), writer);
        let opened = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&opened);
        let counter = std::thread::spawn(move || count_records(reader, &count));
        wait_until_attached(&daemon);
        Ok(Self { daemon, opened, counter })
    }

    /// Records of flows that opened, so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Ends it; records of flows that opened, and the summary.
    pub(crate) fn stop(self) -> Result<(u64, Value)> {
        stop(self.daemon)?;
        let Ok(summary) = self.counter.join() else { bail!("weir's records could not be read") };
        let summary = summary.context("weir wrote no summary")?;
        Ok((self.opened.load(Ordering::Relaxed), serde_json::from_str(&summary)?))
    }
}

/// Counts without decoding: this runs on the same cores as what is measured.
fn count_records(pipe: PipeReader, opened: &AtomicU64) -> Option<String> {
    let mut lines = BufReader::with_capacity(1 << 20, pipe);
    let mut line = Vec::new();
    let mut summary = None;
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // The fields that tell stand at the beginning, before anything off the wire.
        let head = String::from_utf8_lossy(line.get(..160).unwrap_or(&line));
        if head.contains(r#""event":"open""#) {
            opened.fetch_add(1, Ordering::Relaxed);
        } else if head.contains(r#""kind":"summary""#) {
            summary = Some(String::from_utf8_lossy(&line).into_owned());
        }
        line.clear();
    }
    summary
}
