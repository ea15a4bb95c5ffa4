//! The two netlink sockets: one to ask, one to be told.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::FutureExt;
use libc::{
    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK,
    RTNLGRP_NSID,
};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

use super::message::{self, Address, Link, Message, Route};

/// Leave the interfaces' counters out of the answers (a third of their size).
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// The kernel never puts more into one datagram of a dump.
const DATAGRAM_BYTES: usize = 64 * 1024;
/// Room for some thousand notices that arrive while weir does something else.
const NOTICES_BYTES: usize = 8 << 20;
/// A dump that changes disturbed is asked for again, at most so many times.
const DUMP_ATTEMPTS: u32 = 5;
/// Datagrams taken before what they say is acted on.
const BATCH: usize = 256;

/// Asks the kernel and waits for its answer. The answers of the network
/// namespace in which the socket was opened.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Which network namespace is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Namespace<'a> {
    /// That of this process.
    Pid(u32),
    /// That which this open file stands for.
    File(BorrowedFd<'a>),
}

impl Requests {
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Only with strict checks does the kernel look at which namespace's
        // addresses are asked for. They exist since 4.20, and answers are
        // checked for having obeyed.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// All interfaces of this network namespace.
    ///
    /// # Errors
    /// The kernel refuses or the socket fails.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        self.links_of(None)
    }

    /// All interfaces of the network namespace that has this number here.
    ///
    /// # Errors
    /// No such namespace (any more), no right to look into it, or the socket fails.
    pub(super) fn links_in(&mut self, nsid: i32) -> io::Result<Vec<Link>> {
        self.links_of(Some(nsid))
    }

    fn links_of(&mut self, nsid: Option<i32>) -> io::Result<Vec<Link>> {
        let mut body = vec![0; message::IFINFOMSG_BYTES];
        put(&mut body, message::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        if let Some(nsid) = nsid {
            put(&mut body, message::IFLA_TARGET_NETNSID, nsid.to_ne_bytes());
        }
        self.dump(libc::RTM_GETLINK, &body, |message| match message {
            Message::Link(link) => Some(link),
            _ => None,
        })
    }

    /// One interface; `None` if it does not exist (any more).
    ///
    /// # Errors
    /// The kernel refuses for another reason, or the socket fails.
    pub(super) fn link(&mut self, ifindex: u32) -> io::Result<Option<Link>> {
        let mut body = vec![0; message::IFINFOMSG_BYTES];
        body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        put(&mut body, message::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        match self.ask(libc::RTM_GETLINK, &body) {
            Ok(Message::Link(link)) => Ok(Some(link)),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All addresses of this network namespace, with their interfaces' indexes.
    ///
    /// # Errors
    /// The kernel refuses or the socket fails.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let body = [0; message::IFADDRMSG_BYTES];
        self.dump(libc::RTM_GETADDR, &body, |message| match message {
            Message::Address(Address { ifindex, ip, nsid: None }) => Some((ifindex, ip)),
            _ => None,
        })
    }

    /// All addresses of the network namespace that has this number here, with
    /// their interfaces' indexes there.
    ///
    /// # Errors
    /// No such namespace (any more), no right to look into it, or the socket fails.
    pub(super) fn addresses_in(&mut self, nsid: i32) -> io::Result<Vec<(u32, IpAddr)>> {
        let mut body = vec![0; message::IFADDRMSG_BYTES];
        put(&mut body, message::IFA_TARGET_NETNSID, nsid.to_ne_bytes());
        self.dump(libc::RTM_GETADDR, &body, |message| match message {
            Message::Address(Address { ifindex, ip, nsid: Some(of) }) if of == nsid => Some((ifindex, ip)),
            _ => None,
        })
    }

    /// The interfaces of this network namespace that its default routes go through.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn default_routes(&mut self) -> io::Result<BTreeSet<u32>> {
        let routes = self.routes(Route::is_default)?;
        Ok(routes.into_iter().flat_map(|route| route.ifindexes).collect())
    }

    /// Those routes of this network namespace's main table that are wanted.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn routes(&mut self, is_wanted: impl Fn(&Route) -> bool) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0; message::RTMSG_BYTES];
            (body[0], body[4], body[7]) = (family as u8, libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
            let routes = self.dump(libc::RTM_GETROUTE, &body, |message| match message {
                Message::Route(route) => Some(route).filter(&is_wanted),
                _ => None,
            });
            match routes {
                Ok(routes) => found.extend(routes),
                // Nobody has made that table yet, or the kernel has no such addresses.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The number that a namespace has in this one; `None` if it was given none,
    /// which means that no interface here has its other end there.
    ///
    /// # Errors
    /// No such process or file, or the socket fails.
    pub(super) fn nsid(&mut self, of: Namespace<'_>) -> io::Result<Option<i32>> {
        let mut body = vec![0; message::RTGENMSG_BYTES];
        match of {
            Namespace::Pid(pid) => put(&mut body, message::NETNSA_PID, pid.to_ne_bytes()),
            Namespace::File(file) => put(&mut body, message::NETNSA_FD, file.as_raw_fd().to_ne_bytes()),
        }
        match self.ask(libc::RTM_GETNSID, &body)? {
            Message::Nsid(nsid) => Ok(nsid),
            _ => Ok(None),
        }
    }

    /// The one message that answers.
    fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Message> {
        self.send(kind, NLM_F_REQUEST, body)?;
        loop {
            for received in self.receive()? {
                if received.sequence != self.sequence {
                    continue; // what is left of a request that was given up
                }
                return match received.message {
                    Message::Error(0) => Ok(Message::Done),
                    Message::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
                    message => Ok(message),
                };
            }
        }
    }

    fn dump<T>(&mut self, kind: u16, body: &[u8], pick: impl Fn(Message) -> Option<T>) -> io::Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            let (found, interrupted) = self.dump_once(kind, body, &pick)?;
            // After the last attempt an incomplete picture is better than
            // none: notices of the changes that disturbed it are on their way.
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(found);
            }
            attempt += 1;
        }
    }

    fn dump_once<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        pick: &impl Fn(Message) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            for received in self.receive()? {
                if received.sequence != self.sequence {
                    continue;
                }
                interrupted |= received.interrupted;
                match received.message {
                    Message::Done | Message::Error(0) => return Ok((found, interrupted)),
                    Message::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    message => found.extend(pick(message)),
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (16 + body.len()) as u32;
        let mut request = Vec::with_capacity(length as usize);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend(body);
        self.socket.send(&request, 0).map(drop)
    }

    fn receive(&mut self) -> io::Result<Vec<message::Received>> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(message::parse(&self.buffer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Appends an attribute of four bytes.
fn put(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// Hears of changes of interfaces, addresses and namespace numbers.
pub(super) struct Notices {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// What a reading of the notices brought.
#[derive(Debug)]
pub(super) enum News {
    /// In the order in which it happened.
    Messages(Vec<Message>),
    /// Some notices were lost; what was still waiting was thrown away, and all
    /// must be asked for anew.
    Overrun,
}

impl Notices {
    /// To be called in the runtime whose task reads it.
    ///
    /// # Errors
    /// The kernel gives no netlink socket, or not these groups.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        // Beyond the limit for ordinary users, which only root may do; else as
        // much as there is. An overrun is handled in any case.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket.socket_ref(), NOTICES_BYTES)
            .is_err()
        {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket.socket_ref(), NOTICES_BYTES);
        }
        const GROUPS: [u32; 6] = [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_ROUTE,
            RTNLGRP_NSID,
        ];
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Waits for something to happen. Nothing is lost if the future is dropped
    /// before it is ready.
    ///
    /// # Errors
    /// The socket fails for good.
    pub(super) async fn next(&mut self) -> io::Result<News> {
        let mut messages = Vec::new();
        let mut datagrams = 0;
        loop {
            self.buffer.clear();
            let received = if datagrams == 0 {
                self.socket.recv(&mut self.buffer).await
            } else {
                match self.socket.recv(&mut self.buffer).now_or_never() {
                    Some(received) => received,
                    None => return Ok(News::Messages(messages)),
                }
            };
            match received {
                Ok(()) => {
                    let parsed = message::parse(&self.buffer).into_iter().map(|received| received.message);
                    messages.extend(parsed.filter(|message| *message != Message::Other));
                    datagrams += 1;
                    if datagrams == BATCH {
                        return Ok(News::Messages(messages));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.discard()?;
                    return Ok(News::Overrun);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Throws away what waits: it is older than what will be asked for now.
    fn discard(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted
                        || error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
impl Notices {
    /// Leaves room for a few notices only.
    pub(super) fn shrink(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size_force(self.socket.socket_ref(), 4096).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weir_testkit::{Namespace as TestNamespace, require_root};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_process_that_is_gone_has_no_namespace() {
        let mut requests = Requests::open().unwrap();
        let error = requests.nsid(Namespace::Pid(u32::MAX >> 1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        // The socket is as good as before.
        assert!(requests.links().unwrap().iter().any(|link| link.interface.name == "lo"));
        assert_eq!(requests.link(u32::MAX >> 1).unwrap(), None);
        assert_eq!(requests.addresses_in(i32::MAX).unwrap_or_default(), [] as [(u32, IpAddr); 0]);
    }

    #[test]
    fn root_an_overrun_is_noticed_and_the_socket_lives_on() {
        require_root!();
        let host = TestNamespace::new("host");
        host.enter(|| {
            runtime().block_on(async {
                let mut notices = Notices::open().unwrap();
                notices.shrink();
                let lines = (0..50).map(|n| format!("link add near{n} type veth peer name far{n}\n"));
                host.ip_batch(&lines.collect::<String>());
                let next = tokio::time::timeout(Duration::from_secs(10), notices.next()).await;
                assert!(matches!(next.unwrap().unwrap(), News::Overrun));
                host.ip_batch("link delete near7\n");
                let next = tokio::time::timeout(Duration::from_secs(10), notices.next()).await;
                let News::Messages(messages) = next.unwrap().unwrap() else { panic!("overrun again") };
                assert!(messages.iter().any(|message| matches!(message, Message::LinkGone { .. })));
            });
        });
    }
}
