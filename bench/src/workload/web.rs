//! nginx under wrk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use weir_testkit::{Daemon, Namespace, Topology, wait_until};

use super::{Folder, Requests, Workload};
use crate::report::grouped;

const PORT: u16 = 8080;
/// Where nginx tells its own counters, on the loopback of its namespace only.
const STATUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
const START_LIMIT: Duration = Duration::from_secs(10);

/// Answers of 612 bytes, on 16 connections that stay.
pub(crate) struct Web<'a> {
    client: &'a Namespace,
    server: &'a Namespace,
    address: SocketAddr,
    /// How often nginx was asked for its counters, which it counts too.
    asked: u64,
    _nginx: Daemon,
    _folder: Folder,
}

impl<'a> Web<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        let (client, server) = (topology.container("client").namespace(), topology.container("server"));
        let address = SocketAddr::from((server.ipv4(), PORT));
        let folder = Folder::new()?;
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(address))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = server.namespace().command("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
        let nginx = Daemon::start("nginx", &mut command);
        wait_until(START_LIMIT, "nginx takes connections", || {
            client.enter(|| TcpStream::connect_timeout(&address, START_LIMIT)).is_ok()
        });
        Ok(Self { client, server: server.namespace(), address, asked: 0, _nginx: nginx, _folder: folder })
    }
}

fn configuration(address: SocketAddr) -> String {
    let body = "x".repeat(612);
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nuser root;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 100000000;\n\
         client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
         server {{ listen {address}; location / {{ default_type text/plain; return 200 {body}; }} }}\n\
         server {{ listen {STATUS}; location / {{ stub_status; }} }}\n\
         }}\n"
    )
}

impl Workload for Web<'_> {
    fn name(&self) -> &'static str {
        "HTTP, nginx under wrk"
    }

    fn server(&self) -> SocketAddr {
        self.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        let (duration, url) = (format!("{seconds}s"), format!("http://{address}/"));
        let text = self.client.run("wrk", &["-t", "1", "-c", "16", "-d", &duration, &url]);
        rate(&text).with_context(|| format!("wrk tells no rate: {text}"))
    }
}

impl Requests for Web<'_> {
    fn served(&mut self) -> Result<u64> {
        let answer = self.server.enter(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&STATUS, START_LIMIT)?;
            stream.set_read_timeout(Some(START_LIMIT))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        self.asked += 1;
        let requests = requests(&answer).with_context(|| format!("nginx tells no counters: {answer}"))?;
        Ok(requests.saturating_sub(self.asked))
    }

    fn target_per_core_s(&self) -> Option<f64> {
        Some(500_000.0)
    }

    fn tshark_field(&self) -> &'static str {
        "http.request.method"
    }
}

fn rate(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
}

/// Out of "accepts handled requests" and the line below it.
fn requests(answer: &str) -> Option<u64> {
    let (_, rest) = answer.split_once("requests")?;
    rest.lines().nth(1)?.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_found() {
        let text = "  2 threads\nRequests/sec:  48211.37\nTransfer/sec:     37.01MB\n";
        assert_eq!(super::rate(text), Some(48_211.37));
        assert_eq!(super::rate("unable to connect\n"), None);
    }

    #[test]
    fn the_requests_are_found() {
        let text = "HTTP/1.1 200 OK\r\n\r\nActive connections: 1 \n\
                    server accepts handled requests\n 9 9 1234 \nReading: 0 Writing: 1 Waiting: 0 \n";
        assert_eq!(super::requests(text), Some(1234));
        assert_eq!(super::requests("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }
}
