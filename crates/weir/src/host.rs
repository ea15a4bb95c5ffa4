//! What is on this host: its interfaces and addresses, and who is behind each
//! container's interface, at the start and as it changes.
//!
//! [`watch`] tells all of it as a stream of [`HostEvent`]s. Nothing is asked
//! regularly: interfaces, addresses and network namespaces come from netlink's
//! notices, names from the container engine's events, and processes are looked
//! at only when a namespace appears that nobody has explained. While nothing
//! happens, nothing runs.

pub(crate) mod cgroup;
mod links;
mod message;
mod namespaces;
mod netlink;
mod owners;
mod pending;
mod places;
mod watcher;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use thiserror::Error;
use tokio::sync::oneshot;
use weir_core::directory::Directory;
use weir_core::endpoint::Container;

use crate::containers::EngineChoice;
use watcher::Watcher;

pub use places::Places;

/// What [`watch`] looks at.
#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    /// Whom to ask for the names of containers.
    pub engines: EngineChoice,
}

/// Something on the host, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// An interface is there: at the start, when it appears, and when its name,
    /// its other end or its state changes.
    Interface(Interface),
    /// An interface is gone. Nothing more is said of its owner.
    InterfaceGone {
        /// Its index, which may be given to another one later.
        ifindex: u32,
    },
    /// All addresses of this network namespace, each once.
    HostAddresses(Vec<IpAddr>),
    /// Who is behind a veth whose other end is in another network namespace.
    /// Told again whenever more is known, or the container is renamed.
    Owner {
        /// Index of the veth here.
        ifindex: u32,
        /// `None`: nobody any more, the other end came (back) to this namespace.
        container: Option<Arc<Container>>,
    },
    /// All addresses of a container. They replace those told before for the
    /// same [`container_key`].
    Addresses {
        /// The container, as it is described now.
        container: Arc<Container>,
        /// Its addresses, without loopback.
        addresses: Vec<IpAddr>,
    },
    /// A container has none of its addresses any more.
    ContainerGone {
        /// Its [`container_key`].
        id: String,
    },
    /// Something that the user should know, as full sentences: what, why, what
    /// it costs, what to do about it.
    Notice(String),
    /// All that is known at the start has been told. Comes once. For an engine it
    /// waits at most some two seconds: what a slow one says later follows.
    Ready,
}

impl HostEvent {
    /// Has a directory know it, as far as it says who is where.
    pub(crate) fn tell(self, directory: &mut Directory) {
        match self {
            Self::InterfaceGone { ifindex } => directory.set_owner(ifindex, None),
            Self::HostAddresses(addresses) => directory.set_host_addresses(addresses),
            Self::Owner { ifindex, container } => directory.set_owner(ifindex, container),
            Self::Addresses { container, addresses } => {
                let key = container_key(&container).to_owned();
                directory.set_container_addresses(&key, container, addresses);
            }
            Self::ContainerGone { id } => directory.remove_container(&id),
            Self::Interface(_) | Self::Notice(_) | Self::Ready => {}
        }
    }
}

/// What tells one container from another: its id, or, where it has none (a
/// network namespace without a container engine), its name.
#[must_use]
pub fn container_key(container: &Container) -> &str {
    if container.id.is_empty() { &container.name } else { &container.id }
}

/// A network interface of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// Its name, which may change.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Whether its frames begin with an Ethernet header (as those of the
    /// loopback do too).
    pub ethernet: bool,
    /// The number, as seen from here, of the network namespace of a veth's
    /// other end, if that is another one than this. Numbers are used again.
    pub peer_netns: Option<i32>,
    /// The bridge (or other device) that it is a port of.
    pub master_ifindex: Option<u32>,
    /// Whether a default route of this network namespace (its main table) goes through it.
    pub default_route: bool,
    /// Whether it is switched on (not whether a carrier is there).
    pub up: bool,
}

impl Interface {
    /// Whether a container is behind it: the other end of a veth is in another network namespace. But not if this
    /// host's default route goes through it: then this host is a container, and whoever is there its way out. (The
    /// veths of containers are ports of a bridge, which has the routes, or have routes to their containers alone.)
    #[must_use]
    pub fn is_container_side(&self) -> bool {
        let is_uplink = self.default_route && self.master_ifindex.is_none();
        self.kind == InterfaceKind::Veth && self.peer_netns.is_some() && !is_uplink
    }

    /// The number of the network namespace of the container behind it.
    fn container_netns(&self) -> Option<i32> {
        self.peer_netns.filter(|_| self.is_container_side())
    }
}

/// What an interface is, as far as weir cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InterfaceKind {
    /// One end of a virtual Ethernet cable.
    Veth,
    /// Anything else.
    Other,
}

/// Why the host cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The kernel gives no netlink socket, or does not answer.
    #[error("cannot ask the kernel for its network interfaces: {0}")]
    Netlink(#[source] io::Error),
    /// No thread or no event loop.
    #[error("cannot start the thread that watches the host: {0}")]
    Thread(#[source] io::Error),
}

/// Ends the watching when dropped.
#[derive(Debug)]
pub struct WatchHandle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Begins to watch the network namespace of the calling thread. What is to be
/// told waits in the receiver, without limit: interfaces and containers do not
/// come and go faster than a reader that does nothing else but read.
///
/// # Errors
/// The kernel gives no thread or no netlink socket. A container engine that
/// cannot be asked is no error but a [`HostEvent::Notice`].
pub fn watch(options: WatchOptions) -> Result<(Receiver<HostEvent>, WatchHandle), WatchError> {
    let (events, receiver) = crossbeam_channel::unbounded();
    let (stop, stopped) = oneshot::channel();
    let (started, outcome) = crossbeam_channel::bounded(1);
    // A new thread is in the network namespace of the one that makes it.
    let thread = std::thread::Builder::new()
        .name("weir-host".into())
        .spawn(move || run(options, &events, stopped, &started))
        .map_err(WatchError::Thread)?;
    let handle = WatchHandle { stop: Some(stop), thread: Some(thread) };
    match outcome.recv() {
        Ok(Ok(())) => Ok((receiver, handle)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(WatchError::Thread(io::Error::other("it ended at once"))),
    }
}

fn run(
    options: WatchOptions,
    events: &Sender<HostEvent>,
    stopped: oneshot::Receiver<()>,
    started: &Sender<Result<(), WatchError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Looking at all processes is done beside; more than that never is.
        .max_blocking_threads(2)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(WatchError::Thread(error)));
            return;
        }
    };
    runtime.block_on(async {
        match Watcher::open(options, events) {
            Ok(watcher) => {
                let _ = started.send(Ok(()));
                watcher.run(stopped).await;
            }
            Err(error) => {
                let _ = started.send(Err(WatchError::Netlink(error)));
            }
        }
    });
    // What runs beside (a look at the processes, a name lookup) may take a
    // moment; nobody waits for its result any more.
    runtime.shutdown_background();
}
