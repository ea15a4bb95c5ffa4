//! Many new flows, fast: UDP datagrams, each with a source of its own, that
//! nobody answers.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weir_testkit::Container;
use weir_testkit::packet::Frame;

use crate::link::Link;

/// The port of the discard service.
const CLOSED_PORT: u16 = 9;
const MEET_LIMIT: Duration = Duration::from_secs(5);
/// Frames handed to the kernel by one system call.
const BATCH: usize = 64;
/// Source ports used of each source address.
const PORTS: u32 = 50_000;
const FIRST_PORT: u16 = 10_000;
/// Source addresses end in this number and those that follow.
const FIRST_HOST: u8 = 100;
/// Where the frame's fields are: Ethernet, an IPv4 header without options, UDP.
const IP: usize = 14;
const IP_BYTES: usize = 20;
const SOURCE_LAST_BYTE: usize = IP + 15;
const SOURCE_PORT: usize = IP + IP_BYTES;
const UDP_CHECKSUM: usize = SOURCE_PORT + 6;

/// Sends from one container to another as if from many clients.
pub(crate) struct Flood {
    socket: OwnedFd,
    /// Takes the datagrams, so that no ICMP error answers them; nobody reads it.
    _sink: UdpSocket,
    frame: Vec<u8>,
}

impl Flood {
    /// Before weir starts: the two containers meet by a connection that is refused.
    pub(crate) fn new(from: &Container, to: &Container) -> Result<Self> {
        let (source, destination) = (Link::of(from.namespace(), "eth0")?, Link::of(to.namespace(), "eth0")?);
        // Nobody listens there: the answer is a refusal, and the two have met. From
        // now on the bridge knows where to send, and no ARP comes between.
        let closed = SocketAddr::from((to.ipv4(), CLOSED_PORT));
        if from.namespace().enter(|| TcpStream::connect_timeout(&closed, MEET_LIMIT)).is_ok() {
            bail!("somebody listens on the discard port of a container made for this");
        }
        let sink = to.namespace().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        let port = sink.local_addr()?.port();
        let mut frame = Frame::between(&from.ipv4().to_string(), &to.ipv4().to_string())
            .macs(source.mac, destination.mac)
            .udp(FIRST_PORT, port)
            .payload(&[0; 18])
            .build();
        // None is a valid checksum of UDP over IPv4.
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
        let socket = from.namespace().enter(|| packet_socket(source.index))?;
        Ok(Self { socket, _sink: sink, frame })
    }

    /// One datagram for each of `flows`, whose number makes its source. With
    /// `per_second`, no faster than that. The time that it took.
    pub(crate) fn send(&self, flows: Range<u32>, per_second: Option<u32>) -> Result<Duration> {
        let started = Instant::now();
        let mut frames = vec![self.frame.clone(); BATCH];
        let mut next = flows.start;
        while next < flows.end {
            let count = BATCH.min((flows.end - next) as usize);
            for (frame, number) in frames.iter_mut().zip(next..).take(count) {
                address(frame, number)?;
            }
            send_all(&self.socket, frames.get(..count).unwrap_or_default())?;
            next += count as u32;
            if let Some(rate) = per_second {
                let due = Duration::from_secs_f64(f64::from(next - flows.start) / f64::from(rate));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        Ok(started.elapsed())
    }
}

/// Writes the source of flow `number` into the frame.
fn address(frame: &mut [u8], number: u32) -> Result<()> {
    let host = u8::try_from(number / PORTS).ok().and_then(|host| FIRST_HOST.checked_add(host));
    let host = host.filter(|host| *host < 255).context("more flows than there are sources")?;
    let port = FIRST_PORT + (number % PORTS) as u16;
    frame[SOURCE_LAST_BYTE] = host;
    frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
    let header = frame.get_mut(IP..IP + IP_BYTES).context("the frame is shorter than its header")?;
    header[10..12].fill(0);
    let sum: u32 = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// A socket that sends whole frames out of one device.
fn packet_socket(ifindex: u32) -> Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        bail!("no packet socket: {}", std::io::Error::last_os_error());
    }
    // SAFETY: it is open and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = i32::try_from(ifindex)?;
    // SAFETY: the address is as long as is said and outlives the call.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
    };
    if bound < 0 {
        bail!("a packet socket cannot be bound: {}", std::io::Error::last_os_error());
    }
    Ok(socket)
}

fn send_all(socket: &OwnedFd, frames: &[Vec<u8>]) -> Result<()> {
    let mut pieces: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = pieces
        .iter_mut()
        .map(|piece| {
            // SAFETY: all zero is a valid message without address and content.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut sent = 0;
    while sent < messages.len() {
        let rest = messages.get_mut(sent..).unwrap_or_default();
        // SAFETY: each message points to one piece, each piece to a frame of its
        // length, and all of them outlive the call, which only reads the frames.
        let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        match usize::try_from(count) {
            Ok(count) => sent += count,
            Err(_) => bail!("frames cannot be sent: {}", std::io::Error::last_os_error()),
        }
    }
    Ok(())
}
