//! TCP streams and small UDP datagrams: iperf3.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use weir_testkit::{Daemon, Namespace, Stream, Topology};

use super::workload::Workload;
use crate::report::grouped;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A server in `server`, and how its client is called.
struct Iperf<'a> {
    client: &'a Namespace,
    address: String,
    port: String,
    _server: Daemon,
}

impl<'a> Iperf<'a> {
    fn start(topology: &'a Topology, port: u16) -> Self {
        let server = topology.container("server");
        let (address, port) = (server.ipv4().to_string(), port.to_string());
        let mut command = server.namespace().command("iperf3");
        command.args(["--server", "--forceflush", "--bind", &address, "--port", &port]);
        let daemon = Daemon::start("iperf3", &mut command);
        daemon.wait_for_line(Stream::Out, START_LIMIT, |line| line.starts_with("Server listening"));
        Self { client: topology.container("client").namespace(), address, port, _server: daemon }
    }

    /// What the client reports of the whole run.
    fn run(&self, seconds: u32, args: &[&str]) -> Result<Value> {
        let seconds = seconds.to_string();
        let mut all = vec!["--client", &self.address, "--port", &self.port, "--time", &seconds, "--json"];
        all.extend(args);
        let text = self.client.run("iperf3", &all);
        let mut report: Value = serde_json::from_str(&text).context("iperf3 writes no JSON")?;
        Ok(report["end"].take())
    }
}

/// TCP, as fast as it goes.
pub(crate) struct Streams<'a> {
    iperf: Iperf<'a>,
    streams: u8,
}

impl<'a> Streams<'a> {
    pub(crate) fn start(topology: &'a Topology, streams: u8) -> Result<Self> {
        Ok(Self { iperf: Iperf::start(topology, 5200 + u16::from(streams)), streams })
    }
}

impl Workload for Streams<'_> {
    fn name(&self) -> &'static str {
        if self.streams == 1 { "TCP, one stream" } else { "TCP, four streams" }
    }

    fn target(&self) -> f64 {
        0.97
    }

    fn write(&self, rate: f64) -> String {
        format!("{:.1} Gbit/s", rate / 1e9)
    }

    fn run(&mut self, seconds: u32) -> Result<f64> {
        let end = self.iperf.run(seconds, &["--parallel", &self.streams.to_string()])?;
        end["sum_received"]["bits_per_second"].as_f64().context("iperf3 tells no rate")
    }
}

/// 64-byte UDP datagrams, as many as one core sends.
pub(crate) struct Datagrams<'a>(Iperf<'a>);

impl<'a> Datagrams<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        Ok(Self(Iperf::start(topology, 5300)))
    }
}

impl Workload for Datagrams<'_> {
    fn name(&self) -> &'static str {
        "UDP, 64-byte datagrams"
    }

    fn target(&self) -> f64 {
        0.97
    }

    fn write(&self, rate: f64) -> String {
        format!("{} received/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32) -> Result<f64> {
        let end = self.0.run(seconds, &["--udp", "--bitrate", "0", "--length", "64"])?;
        let sum = |name: &str| end["sum"][name].as_f64().with_context(|| format!("iperf3 tells no {name}"));
        Ok((sum("packets")? - sum("lost_packets")?) / sum("seconds")?)
    }
}
