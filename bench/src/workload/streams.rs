//! TCP streams and small UDP datagrams: iperf3.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use weir_testkit::{Daemon, Namespace, Stream, Topology};

use super::Workload;
use crate::report::grouped;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A server in `server`, and how its client is called.
struct Iperf<'a> {
    client: &'a Namespace,
    address: SocketAddr,
    _server: Daemon,
}

impl<'a> Iperf<'a> {
    fn start(topology: &'a Topology, port: u16) -> Self {
        let server = topology.container("server");
        let address = SocketAddr::from((server.ipv4(), port));
        let mut command = server.namespace().command("iperf3");
        command.args(["--server", "--forceflush", "--bind", &address.ip().to_string()]);
        command.args(["--port", &port.to_string()]);
        let daemon = Daemon::start("iperf3", &mut command);
        daemon.wait_for_line(Stream::Out, START_LIMIT, |line| line.starts_with("Server listening"));
        Self { client: topology.container("client").namespace(), address, _server: daemon }
    }

    /// What the client reports of the whole run.
    fn run(&self, seconds: u32, address: SocketAddr, args: &[&str]) -> Result<Value> {
        let (ip, port, seconds) = (address.ip().to_string(), address.port().to_string(), seconds.to_string());
        let mut all = vec!["--client", &ip, "--port", &port, "--time", &seconds, "--json"];
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

    fn server(&self) -> SocketAddr {
        self.iperf.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{:.1} Gbit/s", rate / 1e9)
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        let end = self.iperf.run(seconds, address, &["--parallel", &self.streams.to_string()])?;
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

    fn server(&self) -> SocketAddr {
        self.0.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{} received/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        let end = self.0.run(seconds, address, &["--udp", "--bitrate", "0", "--length", "64"])?;
        let sum = |name: &str| end["sum"][name].as_f64().with_context(|| format!("iperf3 tells no {name}"));
        Ok((sum("packets")? - sum("lost_packets")?) / sum("seconds")?)
    }
}
