//! Redis under redis-benchmark.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weir_testkit::{Daemon, Namespace, Stream, Topology};

use super::{Folder, Requests, Workload};
use crate::report::grouped;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Requests that tell how fast the machine is: redis-benchmark counts, and
/// knows no time.
const TRIAL: u64 = 20_000;

/// GET of a small value, on 16 connections that stay.
pub(crate) struct Keys<'a> {
    client: &'a Namespace,
    address: SocketAddr,
    pipeline: u32,
    /// Requests in a second, about.
    expected: Option<f64>,
    socket: PathBuf,
    _redis: Daemon,
    _folder: Folder,
}

impl<'a> Keys<'a> {
    /// `pipeline` requests at a time on each connection.
    pub(crate) fn start(topology: &'a Topology, pipeline: u32) -> Result<Self> {
        let (client, server) = (topology.container("client").namespace(), topology.container("server"));
        // tshark takes this port for Redis.
        let address = SocketAddr::from((server.ipv4(), 6379 + u16::try_from(pipeline - 1)?));
        let folder = Folder::new()?;
        let socket = folder.path().join("redis");
        let mut command = server.namespace().command("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(folder.path());
        let redis = Daemon::start("redis-server", &mut command);
        redis.wait_for_line(Stream::Out, START_LIMIT, |line| {
            line.contains("ready to accept connections at") // the last of its two sockets
        });
        Ok(Self { client, address, pipeline, expected: None, socket, _redis: redis, _folder: folder })
    }

    fn load(&self, requests: u64, address: SocketAddr) -> Result<f64> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let (requests, pipeline) = (requests.to_string(), self.pipeline.to_string());
        let text = self.client.run(
            "redis-benchmark",
            &["-h", &ip, "-p", &port, "-t", "get", "-c", "16", "-n", &requests, "-P", &pipeline, "--csv"],
        );
        rate(&text).with_context(|| format!("redis-benchmark tells no rate: {text}"))
    }
}

impl Workload for Keys<'_> {
    fn name(&self) -> &'static str {
        if self.pipeline == 1 { "Redis, one by one" } else { "Redis, 16 in a pipeline" }
    }

    fn server(&self) -> SocketAddr {
        self.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        let expected = match self.expected {
            Some(expected) => expected,
            None => *self.expected.insert(self.load(TRIAL, address)?),
        };
        let requests = (expected * f64::from(seconds)) as u64;
        // Its own rate leaves out how it starts; what was sent there is watched too.
        let started = Instant::now();
        self.load(requests, address)?;
        Ok(requests as f64 / started.elapsed().as_secs_f64())
    }
}

impl Requests for Keys<'_> {
    fn served(&mut self) -> Result<u64> {
        // redis-cli asks one question more than the one it is told to when it starts on a
        // terminal only; here INFO is all.
        let output =
            Command::new("redis-cli").arg("-s").arg(&self.socket).args(["info", "commandstats"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("redis-cli: {}{text}", String::from_utf8_lossy(&output.stderr));
        }
        commands(&text).with_context(|| format!("Redis tells no counters: {text}"))
    }

    fn target_per_core_s(&self) -> Option<f64> {
        Some(500_000.0)
    }

    fn tshark_field(&self) -> &'static str {
        "resp.array.length"
    }
}

/// `"test","rps",…` and `"GET","93457.94",…`
fn rate(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("\"GET\""))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

/// Of all commands but those that ask for this very number: `cmdstat_get:calls=20000,usec=…`.
fn commands(text: &str) -> Option<u64> {
    let calls = text.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        (command != "info").then_some(rest.split(',').next()?.parse::<u64>().ok()?)
    });
    text.contains("# Commandstats").then(|| calls.sum())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_redis_writes_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"93457.94\",\"0.105\"\n";
        assert_eq!(super::rate(text), Some(93_457.94));
        let text = "# Commandstats\r\ncmdstat_info:calls=3,usec=90\r\n\
                    cmdstat_config|get:calls=2,usec=9\r\ncmdstat_get:calls=20000,usec=5000\r\n";
        assert_eq!(super::commands(text), Some(20_002));
        assert_eq!(super::commands("# Commandstats\r\n"), Some(0));
        assert_eq!(super::commands("ERR\r\n"), None);
    }
}
