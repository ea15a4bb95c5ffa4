//! One byte there and one back: on one connection, or on a new one each time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weir_testkit::{Namespace, Topology};

use super::Workload;
use crate::report::grouped;

/// Longest wait for a connection or an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Serves one connection after the other and sends back each byte.
struct Server<'a> {
    namespace: &'a Namespace,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Server<'a> {
    fn start(topology: &'a Topology) -> Result<Self> {
        let container = topology.container("server");
        let listener = container.namespace().enter(|| TcpListener::bind((container.ipv4(), 0)))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept()
                && !stopped.load(Ordering::Relaxed)
            {
                // A client that has gone is no matter.
                let _ = echo(stream);
            }
        });
        Ok(Self { namespace: container.namespace(), address, stop, thread: Some(thread) })
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for a connection; with one it sees the flag.
        let address = self.address;
        if self.namespace.enter(|| TcpStream::connect_timeout(&address, LIMIT)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0; 1];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => stream.write_all(&byte)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [0x5a; 1];
    stream.write_all(&byte).context("a request cannot be sent")?;
    stream.read_exact(&mut byte).context("a request gets no answer")
}

/// Calls `work` again and again; how often a second.
fn repeat(seconds: u32, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds.into());
    let mut done = 0u64;
    while Instant::now() < end {
        work()?;
        done += 1;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Requests and answers on one connection.
pub(crate) struct RequestResponse<'a> {
    server: Server<'a>,
    client: &'a Namespace,
}

impl<'a> RequestResponse<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        Ok(Self { server: Server::start(topology)?, client: topology.container("client").namespace() })
    }
}

impl Workload for RequestResponse<'_> {
    fn name(&self) -> &'static str {
        "TCP, request and response"
    }

    fn server(&self) -> SocketAddr {
        self.server.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        self.client.enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LIMIT))?;
            repeat(seconds, || exchange(&mut stream))
        })
    }
}

/// A connection, a request and its answer, and the end.
pub(crate) struct NewConnections<'a> {
    server: Server<'a>,
    client: &'a Namespace,
}

impl<'a> NewConnections<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        let client = topology.container("client").namespace();
        // The client closes first and remembers each connection for a minute:
        // without these two it would be out of ports after a few rounds.
        client.sysctl("ipv4/ip_local_port_range", "1024 65535");
        client.sysctl("ipv4/tcp_tw_reuse", "1");
        Ok(Self { server: Server::start(topology)?, client })
    }
}

impl Workload for NewConnections<'_> {
    fn name(&self) -> &'static str {
        "TCP, new connections"
    }

    fn server(&self) -> SocketAddr {
        self.server.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        self.client.enter(|| {
            repeat(seconds, || {
                let mut stream = TcpStream::connect(address).context("no connection")?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LIMIT))?;
                exchange(&mut stream)
            })
        })
    }
}
