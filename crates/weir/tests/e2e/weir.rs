//! Running the binary under test.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use weir_testkit::{Bpffs, Daemon, Namespace, Stream};

/// Longest wait for anything that should happen at once. To start `weir run` takes two seconds of a
/// processor: where others keep it, or it is an emulated one, that is long.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// What weir says on standard error once it sees every packet: what it watches,
/// or that there is nothing to watch yet.
const READY: [&str; 2] = ["weir: watching", "weir: no container is running"];

/// `weir` in the network namespace of `host`.
pub(crate) fn command(host: &Namespace, args: &[&str]) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_weir"));
    command.args(args);
    command
}

/// The same, with pinned state of the test's own, and for a user who has not come by SSH.
pub(crate) fn command_with_state(host: &Namespace, bpffs: &Bpffs, args: &[&str]) -> Command {
    let mut command = command(host, args);
    let socket = bpffs.path().with_extension("sock");
    command.env("WEIR_BPFFS", bpffs.path()).env("WEIR_SOCKET", socket).env_remove("SSH_CONNECTION");
    command
}

/// A running `weir observe -o jsonl`.
pub(crate) struct Weir {
    pub(crate) daemon: Daemon,
}

impl Weir {
    /// Starts it with these further arguments, without a container engine, and
    /// waits until it watches.
    #[track_caller]
    pub(crate) fn observe(host: &Namespace, args: &[&str]) -> Self {
        let fixed = ["observe", "-o", "jsonl", "--engine", "none"];
        Self::start(&mut command(host, &[&fixed, args].concat()))
    }

    /// Starts `command` and waits until it watches.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let daemon = Daemon::start("weir", command);
        daemon.wait_for_line(Stream::Err, LIMIT, |line| READY.iter().any(|ready| line.starts_with(ready)));
        Self { daemon }
    }

    /// The first record, of those there are and those to come, for which `wanted` holds.
    #[track_caller]
    pub(crate) fn wait_for_record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = self.daemon.wait_for_line(Stream::Out, LIMIT, |line| wanted(&parse(line)));
        parse(&line)
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    pub(crate) fn finish(self) -> Run {
        self.finish_by(libc::SIGINT)
    }

    /// Ends it by a signal that it answers by ending well.
    #[track_caller]
    pub(crate) fn finish_by(mut self, signal: i32) -> Run {
        let status = self.daemon.stop(signal, LIMIT);
        self.ended_with(status)
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Run {
        let status = self.daemon.wait(LIMIT);
        self.ended_with(status)
    }

    #[track_caller]
    fn ended_with(&self, status: ExitStatus) -> Run {
        assert!(status.success(), "weir ended with {status}");
        let mut records: Vec<Value> = self.daemon.stdout().iter().map(|line| parse(line)).collect();
        let summary = records.pop().expect("a summary ends the records");
        assert_eq!(summary["kind"], "summary", "{summary}");
        Run { records, summary }
    }
}

#[track_caller]
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in record {line}"))
}

/// What a run of weir said.
pub(crate) struct Run {
    /// Without the summary.
    pub(crate) records: Vec<Value>,
    pub(crate) summary: Value,
}

impl Run {
    /// The last record of each flow for which `wanted` holds.
    pub(crate) fn flows(&self, wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        let mut last = BTreeMap::new();
        for record in self.records.iter().filter(|record| record["kind"] == "flow") {
            last.insert(text(&record["id"]), record);
        }
        last.into_values().filter(|flow| wanted(flow)).collect()
    }

    /// The last record of the only flow for which `wanted` holds.
    #[track_caller]
    pub(crate) fn flow(&self, wanted: impl Fn(&Value) -> bool) -> &Value {
        let flows = self.flows(wanted);
        let [flow] = flows.as_slice() else {
            panic!("{} flows instead of one, of:\n{}", flows.len(), self.lines())
        };
        flow
    }

    /// All records, for messages.
    pub(crate) fn lines(&self) -> String {
        let records = self.records.iter().chain([&self.summary]);
        records.map(|record| format!("{record}\n")).collect()
    }
}

/// A field that is text.
#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

/// A field that is a counter.
#[track_caller]
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a counter: {value}"))
}

/// Whether a flow is of this protocol and has this port at either end.
pub(crate) fn has_port(record: &Value, protocol: &str, port: u16) -> bool {
    record["protocol"] == protocol && (record["client"]["port"] == port || record["server"]["port"] == port)
}

/// What a flow's record says of one device.
#[track_caller]
pub(crate) fn at_interface<'a>(record: &'a Value, name: &str) -> &'a Value {
    let interfaces = record["interfaces"].as_array().unwrap_or_else(|| panic!("no interfaces in {record}"));
    interfaces
        .iter()
        .find(|interface| interface["name"] == name)
        .unwrap_or_else(|| panic!("no interface {name} in {record}"))
}
