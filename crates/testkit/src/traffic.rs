//! Servers and clients inside namespaces. Everything ends by itself: each wait
//! has a limit, each client a count.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Namespace, uninterrupted};

/// Longest wait of a client for an answer, and for a connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How soon a server notices that it is to end.
const POLL: Duration = Duration::from_millis(20);

/// A server that sends back what it gets, until it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on TCP at `ip` in `namespace`, at a free port.
    #[must_use]
    pub fn tcp(namespace: &Namespace, ip: impl Into<IpAddr>) -> Self {
        Self::tcp_at(namespace, SocketAddr::new(ip.into(), 0))
    }

    /// Listens on TCP at `address` in `namespace`.
    #[must_use]
    pub fn tcp_at(namespace: &Namespace, address: SocketAddr) -> Self {
        let listener = namespace
            .enter(|| TcpListener::bind(address))
            .unwrap_or_else(|e| panic!("cannot listen at {address} in {}: {e}", namespace.name()));
        Self::at(listener)
    }

    /// Answers what `listener` accepts: TCP, or another protocol whose sockets are used alike.
    #[must_use]
    pub fn at(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener can be set non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        Self::start(address, move |stop| serve_tcp(&listener, stop))
    }

    /// Listens on UDP at `ip` in `namespace`, at a free port.
    #[must_use]
    pub fn udp(namespace: &Namespace, ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let socket = namespace
            .enter(|| UdpSocket::bind((ip, 0)))
            .unwrap_or_else(|e| panic!("cannot bind {ip} in {}: {e}", namespace.name()));
        socket.set_read_timeout(Some(POLL)).expect("a socket takes a timeout");
        let address = socket.local_addr().expect("a socket has an address");
        Self::start(address, move |stop| {
            let mut buffer = [0; 65536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                    // A client that has gone is no matter.
                    let _ = socket.send_to(&buffer[..bytes], from);
                }
            }
        })
    }

    fn start(address: SocketAddr, serve: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self { address, stop, thread: Some(thread::spawn(move || serve(&flag))) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || echo(stream, stop));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    // Accepted sockets are blocking on Linux whatever the listener is; a limit
    // lets the thread see that it is to end.
    if stream.set_read_timeout(Some(POLL)).is_err() {
        return;
    }
    let mut buffer = [0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match uninterrupted(|| stream.read(&mut buffer)) {
            Ok(0) => return,
            Ok(bytes) => {
                if stream.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Opens a TCP connection from `namespace`.
#[track_caller]
#[must_use]
pub fn connect(namespace: &Namespace, address: SocketAddr) -> TcpStream {
    let stream = namespace
        .enter(|| TcpStream::connect_timeout(&address, ANSWER_LIMIT))
        .unwrap_or_else(|e| panic!("cannot connect to {address} from {}: {e}", namespace.name()));
    stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket takes a timeout");
    stream.set_write_timeout(Some(ANSWER_LIMIT)).expect("a socket takes a timeout");
    stream.set_nodelay(true).expect("a socket takes an option");
    stream
}

/// Sends `bytes` bytes over `stream` to an echo server and reads them all back.
#[track_caller]
pub fn exchange(stream: &mut TcpStream, bytes: usize) {
    // In pieces that fit into socket buffers: sender and echo never wait for
    // each other.
    let piece = vec![0x5a; bytes.min(16384)];
    let mut answer = vec![0; piece.len()];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).expect("the server takes what is sent");
        stream.read_exact(&mut answer[..now]).expect("the server answers");
        left -= now;
    }
}

/// Opens `connections` TCP connections one after the other, each with `bytes`
/// sent and echoed, each closed by the client. The client's ports.
#[track_caller]
pub fn tcp_echo(namespace: &Namespace, address: SocketAddr, connections: usize, bytes: usize) -> Vec<u16> {
    (0..connections)
        .map(|_| {
            let mut stream = connect(namespace, address);
            exchange(&mut stream, bytes);
            stream.local_addr().expect("a socket has an address").port()
        })
        .collect()
}

/// Sends `datagrams` UDP datagrams of `bytes` bytes to an echo server from one
/// socket and waits for each answer. The client's port.
#[track_caller]
pub fn udp_echo(namespace: &Namespace, address: SocketAddr, datagrams: usize, bytes: usize) -> u16 {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = namespace.enter(|| UdpSocket::bind((any, 0))).expect("a socket binds");
    socket.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket takes a timeout");
    let (datagram, mut answer) = (vec![0x5a; bytes], vec![0; bytes + 1]);
    for number in 0..datagrams {
        socket.send_to(&datagram, address).expect("a datagram is sent");
        let (answer_bytes, from) = uninterrupted(|| socket.recv_from(&mut answer))
            .unwrap_or_else(|e| panic!("no answer to datagram {number}: {e}"));
        assert_eq!((answer_bytes, from), (bytes, address));
    }
    socket.local_addr().expect("a socket has an address").port()
}

/// Pings `address` from `namespace`, `count` times, `bytes` bytes after the
/// ICMP header; each must be answered.
#[track_caller]
pub fn ping(namespace: &Namespace, address: impl Into<IpAddr>, count: usize, bytes: usize) {
    let (address, count, bytes) = (address.into().to_string(), count.to_string(), bytes.to_string());
    namespace.run("ping", &["-n", "-q", "-i", "0.01", "-W", "5", "-c", &count, "-s", &bytes, &address]);
}

/// Sends `frame` as it is out of `device` in `namespace`.
#[track_caller]
pub fn send_frame(namespace: &Namespace, device: &str, frame: &[u8]) {
    let device = std::ffi::CString::new(device).expect("no zero in a device's name");
    namespace.enter(|| {
        // SAFETY: `device` is a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
        assert_ne!(index, 0, "no device {device:?} here");
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(socket >= 0, "no packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: it is open and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_ifindex = i32::try_from(index).expect("a small number");
        // SAFETY: the frame and the address are as long as is said.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                u32::try_from(std::mem::size_of_val(&address)).expect("a small number"),
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", std::io::Error::last_os_error());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    #[test]
    fn root_echoes_over_both_versions() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web", "db"]);
        let (web, db) = (topology.container("web"), topology.container("db"));
        for ip in [IpAddr::V4(db.ipv4()), IpAddr::V6(db.ipv6())] {
            let server = EchoServer::tcp(db.namespace(), ip);
            let ports = tcp_echo(web.namespace(), server.address(), 3, 100_000);
            assert_eq!(ports.len(), 3);
            let server = EchoServer::udp(db.namespace(), ip);
            assert_ne!(udp_echo(web.namespace(), server.address(), 5, 1200), 0);
            ping(web.namespace(), ip, 2, 56);
        }
    }

    #[test]
    fn root_a_frame_goes_out_as_it_is() {
        crate::require_root!();
        let namespace = Namespace::new("ns");
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1"); // it would send frames of its own
        namespace.ip_batch("link add left type veth peer name right\nlink set left up\nlink set right up");
        let frame = crate::packet::Frame::between("10.99.0.2", "10.99.0.9").sctp(1, 2).build();
        send_frame(&namespace, "left", &frame);
        let counted = crate::Counters::of(&namespace, "right");
        assert_eq!((counted.rx_packets, counted.rx_bytes), (1, frame.len() as u64));
    }

    #[test]
    fn root_a_server_ends_with_clients_still_connected() {
        crate::require_root!();
        let namespace = Namespace::new("ns");
        let server = EchoServer::tcp(&namespace, [127, 0, 0, 1]);
        let mut stream = connect(&namespace, server.address());
        exchange(&mut stream, 10);
        drop(server);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the server closed");
    }
}
