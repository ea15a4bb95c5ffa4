//! nginx under wrk.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_testkit::{Daemon, Namespace, Topology, wait_until};

use super::workload::Workload;
use crate::report::grouped;

const PORT: u16 = 8080;
const START_LIMIT: Duration = Duration::from_secs(10);

/// Answers of 612 bytes, on 16 connections that stay.
pub(crate) struct Web<'a> {
    client: &'a Namespace,
    url: String,
    _nginx: Daemon,
    _folder: Folder,
}

impl<'a> Web<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        let (client, server) = (topology.container("client").namespace(), topology.container("server"));
        let address = SocketAddr::from((server.ipv4(), PORT));
        let folder = Folder::new()?;
        let file = folder.0.join("nginx.conf");
        std::fs::write(&file, configuration(address))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = server.namespace().command("nginx");
        command.arg("-p").arg(&folder.0).arg("-c").arg(&file).args(["-e", "stderr"]);
        let nginx = Daemon::start("nginx", &mut command);
        wait_until(START_LIMIT, "nginx takes connections", || {
            client.enter(|| TcpStream::connect_timeout(&address, START_LIMIT)).is_ok()
        });
        Ok(Self { client, url: format!("http://{address}/"), _nginx: nginx, _folder: folder })
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
         }}\n"
    )
}

impl Workload for Web<'_> {
    fn name(&self) -> &'static str {
        "HTTP, nginx under wrk"
    }

    fn target(&self) -> f64 {
        0.97
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32) -> Result<f64> {
        let duration = format!("{seconds}s");
        let text = self.client.run("wrk", &["-t", "1", "-c", "16", "-d", &duration, &self.url]);
        rate(&text).with_context(|| format!("wrk tells no rate: {text}"))
    }
}

fn rate(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
}

/// A folder of this process's own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_found() {
        let text = "  2 threads\nRequests/sec:  48211.37\nTransfer/sec:     37.01MB\n";
        assert_eq!(super::rate(text), Some(48_211.37));
        assert_eq!(super::rate("unable to connect\n"), None);
    }
}
