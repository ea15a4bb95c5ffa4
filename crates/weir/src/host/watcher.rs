//! The loop that hears netlink and the container engine and tells what follows.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::io;
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::links::Links;
use super::message::{Link, Message};
use super::namespaces::{self, Found};
use super::netlink::{Namespace, News, Notices, Requests};
use super::owners::Owners;
use super::pending::Pending;
use super::{HostEvent, Interface, InterfaceKind, WatchOptions};
use crate::containers::{Command, Described, EngineEvent, NetworkMode, Session};

/// So long the engine is waited for at the start. What weir looks up by itself is told in any case.
const ENGINE_PATIENCE: Duration = Duration::from_millis(1800);
/// Looking at the processes takes at most one part in so many of the time.
const SCAN_SHARE: u32 = 5;

/// Nobody listens any more.
struct Alone;

pub(super) struct Watcher<'a> {
    out: &'a Sender<HostEvent>,
    requests: Requests,
    notices: Notices,
    links: Links,
    owners: Owners,
    pending: Pending,
    engine: Session,
    scan: Option<Scan>,
    /// Not to look at the processes before then.
    scan_not_before: Instant,
    /// Until all is told that is known at the start.
    start: Option<Start>,
}

/// A look at the processes, under way.
struct Scan {
    begin: Instant,
    /// The namespaces for whose sake it was begun, as long as they last.
    wanted: HashSet<i32>,
    task: JoinHandle<io::Result<HashMap<i32, Found>>>,
}

struct Start {
    /// How long the engine is waited for; not at all, when it has told what it knows.
    engine_until: Option<Instant>,
}

impl<'a> Watcher<'a> {
    /// Reads all interfaces and addresses. To be called in a runtime.
    ///
    /// # Errors
    /// No netlink socket, or no answer from it.
    pub(super) fn open(options: WatchOptions, out: &'a Sender<HostEvent>) -> io::Result<Self> {
        let now = Instant::now();
        let mut watcher = Self {
            out,
            requests: Requests::open()?,
            // Before the first reading: what changes after it is heard.
            notices: Notices::open()?,
            links: Links::default(),
            owners: Owners::default(),
            pending: Pending::default(),
            engine: Session::start(options.engines),
            scan: None,
            scan_not_before: now,
            start: Some(Start { engine_until: Some(now + ENGINE_PATIENCE) }),
        };
        watcher.read_all()?;
        Ok(watcher)
    }

    /// Tells until it is stopped or nobody listens any more.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        // The handle's end of the channel is dropped without a word.
        let work = async { while self.step().await.is_ok() {} };
        tokio::select! {
            _ = &mut stop => {}
            () = work => {}
        }
    }

    async fn step(&mut self) -> Result<(), Alone> {
        self.look_if_due();
        self.flush()?;
        let next_look = self.next_look();
        let engine_until = self.start.as_ref().and_then(|start| start.engine_until);
        tokio::select! {
            news = self.notices.next() => match news {
                Ok(News::Messages(messages)) => messages.into_iter().for_each(|message| self.heard(message)),
                Ok(News::Overrun) => self.begin_anew(),
                Err(error) => self.reopen(&error)?,
            },
            event = self.engine.next() => self.engine_said(event),
            (wanted, found) = scanned(&mut self.scan) => self.found(&wanted, found),
            () = at(next_look) => {}
            () = at(engine_until) => self.wait_for_no_engine(),
        }
        Ok(())
    }

    fn tell(&self, event: HostEvent) {
        // That nobody listens is seen in `flush`.
        let _ = self.out.send(event);
    }

    /// Tells what the tables have gathered, and that the start is over.
    fn flush(&mut self) -> Result<(), Alone> {
        if let Some(addresses) = self.links.take_changed_addresses() {
            self.out.send(addresses).map_err(|_| Alone)?;
        }
        for event in self.owners.take_events() {
            self.out.send(event).map_err(|_| Alone)?;
        }
        // The first look at the processes begins before the first flush, if
        // there is anything to look for.
        if self.scan.is_none() && self.start.as_ref().is_some_and(|start| start.engine_until.is_none()) {
            self.start = None;
            self.tell(HostEvent::Ready);
        }
        Ok(())
    }

    fn wait_for_no_engine(&mut self) {
        if let Some(start) = &mut self.start {
            start.engine_until = None;
        }
    }

    /// Asks for all interfaces and addresses, and takes them for what was known.
    fn read_all(&mut self) -> io::Result<()> {
        // First: nothing is to be told of an interface that they say more of.
        self.read_default_routes()?;
        let links = self.requests.links()?;
        for event in self.links.replace(links) {
            if let HostEvent::InterfaceGone { ifindex } = event {
                self.owners.remove_veth(ifindex);
            }
            self.tell(event);
        }
        let addresses = self.requests.addresses()?;
        self.links.replace_addresses(addresses);
        let interfaces: Vec<Interface> = self.links.iter().cloned().collect();
        interfaces.iter().for_each(|interface| self.look_behind(interface, true));
        Ok(())
    }

    fn read_default_routes(&mut self) -> io::Result<()> {
        let ifindexes = self.requests.default_routes()?;
        for event in self.links.put_default_routes(ifindexes) {
            if let HostEvent::Interface(interface) = &event {
                self.look_behind(interface, true);
            }
            self.tell(event);
        }
        Ok(())
    }

    /// An interface is there. `changed`: it was not, or not as it is.
    fn look_behind(&mut self, interface: &Interface, changed: bool) {
        if interface.kind != InterfaceKind::Veth {
            return;
        }
        let nsid = interface.container_netns();
        if let Some(nsid) = nsid.filter(|_| changed) {
            self.pending.put(nsid, Instant::now());
        }
        self.owners.put_veth(interface.ifindex, &interface.name, nsid);
    }

    /// Notices were lost.
    fn begin_anew(&mut self) {
        let now = Instant::now();
        for nsid in self.owners.doubt_namespaces() {
            self.pending.put(nsid, now);
        }
        if let Some(scan) = &mut self.scan {
            scan.wanted.clear();
        }
        if let Err(error) = self.read_all() {
            self.tell(HostEvent::Notice(format!(
                "The kernel did not say which network interfaces there are: {error}. Some may be missing or \
                 shown though they are gone, until they change. Restart weir if that matters."
            )));
        }
        self.engine.ask(Command::Repeat);
    }

    /// The socket of the notices does not work any more.
    fn reopen(&mut self, error: &io::Error) -> Result<(), Alone> {
        match Notices::open() {
            Ok(notices) => {
                self.notices = notices;
                self.begin_anew();
                Ok(())
            }
            Err(again) => {
                self.tell(HostEvent::Notice(format!(
                    "The kernel tells nothing of network interfaces any more: {error}, and {again} when asked \
                     to tell again. Containers that start from now on are not seen. Restart weir."
                )));
                Err(Alone)
            }
        }
    }

    fn heard(&mut self, message: Message) {
        match message {
            Message::Link(link) => self.put_link(link),
            Message::LinkGone { ifindex } => {
                if let Some(event) = self.links.remove(ifindex) {
                    self.owners.remove_veth(ifindex);
                    self.tell(event);
                }
                // Or it only left for another namespace.
                for veth in self.links.with_peer_here(ifindex) {
                    self.ask_link(veth);
                }
            }
            Message::Address(address) => self.links.put_address(address.ifindex, address.ip),
            Message::AddressGone(address) => {
                self.links.remove_address(address.ifindex, address.ip);
                self.doubt_default_route(address.ifindex);
            }
            Message::Route(route) if route.is_default() => self.hear_default_routes(),
            Message::NsidGone(nsid) => {
                self.owners.remove_namespace(nsid);
                self.pending.remove(nsid);
                if let Some(scan) = &mut self.scan {
                    scan.wanted.remove(&nsid);
                }
            }
            Message::Route(_) | Message::Nsid(_) | Message::Done | Message::Error(_) | Message::Other => {}
        }
    }

    /// Of routes that go with their interface or its address the kernel does not tell.
    fn doubt_default_route(&mut self, ifindex: u32) {
        if self.links.has_default_route(ifindex) {
            self.hear_default_routes();
        }
    }

    fn hear_default_routes(&mut self) {
        // What cannot be asked now stays as it was until the next change.
        let _ = self.read_default_routes();
    }

    /// The kernel does not tell of a veth that its other end left this
    /// namespace or came to it.
    fn ask_link(&mut self, ifindex: u32) {
        if let Ok(Some(link)) = self.requests.link(ifindex) {
            self.put_link(link);
        }
    }

    fn put_link(&mut self, link: Link) {
        let ifindex = link.interface.ifindex;
        let came = self.links.with_peer_elsewhere(&link);
        let changed = self.links.put(link);
        if let Some(interface) = self.links.get(ifindex).cloned() {
            self.look_behind(&interface, changed.is_some());
        }
        if let Some(event) = changed {
            self.tell(event);
            self.doubt_default_route(ifindex);
        }
        if let Some(veth) = came {
            self.ask_link(veth);
        }
    }

    fn next_look(&self) -> Option<Instant> {
        // A look at the processes that is under way ends with a step anyway.
        self.pending.next().filter(|_| self.scan.is_none()).map(|due| due.max(self.scan_not_before))
    }

    /// Looks for the owners and addresses of the namespaces whose turn it is.
    fn look_if_due(&mut self) {
        let now = Instant::now();
        if self.next_look().is_none_or(|due| due > now) {
            return;
        }
        let mut wanted = HashSet::new();
        for nsid in self.pending.take_due(now) {
            let (owner, addresses) = (self.owners.wants_owner(nsid), self.owners.wants_addresses(nsid));
            if addresses {
                self.ask_addresses(nsid);
            }
            if owner {
                wanted.insert(nsid);
            } else if !addresses {
                self.pending.remove(nsid);
            }
        }
        if !wanted.is_empty() {
            let task = tokio::task::spawn_blocking(namespaces::scan);
            self.scan = Some(Scan { begin: now, wanted, task });
        }
    }

    fn ask_addresses(&mut self, nsid: i32) {
        // A namespace that is gone, or one that weir may not look into: then
        // there is only what the engine says.
        if let Ok(addresses) = self.requests.addresses_in(nsid) {
            self.owners.put_addresses(nsid, addresses.into_iter().map(|(_, ip)| ip).collect());
        }
    }

    fn found(&mut self, wanted: &HashSet<i32>, mut found: HashMap<i32, Found>) {
        let took = self.scan.take().map(|scan| scan.begin.elapsed()).unwrap_or_default();
        self.scan_not_before = Instant::now() + took * (SCAN_SHARE - 1);
        for nsid in wanted {
            if let Some(id) = self.owners.put_found(*nsid, found.remove(nsid).unwrap_or_default()) {
                self.engine.ask(Command::LookUp(id));
            }
        }
    }

    fn engine_said(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Container(described) => self.put_container(*described),
            EngineEvent::Gone(id) => self.owners.remove_container(&id),
            EngineEvent::Running(ids) => self.owners.keep_containers(&ids),
            EngineEvent::Notice(text) => self.tell(HostEvent::Notice(text)),
            EngineEvent::Settled => self.wait_for_no_engine(),
        }
    }

    fn put_container(&mut self, described: Described) {
        let nsid = self.namespace_of(&described);
        let id = described.container.id.clone();
        // An engine elsewhere has containers with the same addresses as some here.
        let here = described.local || nsid.is_some();
        let addresses = described.addresses.into_iter().filter(|_| here).collect();
        self.owners.put_container(described.container, nsid, addresses);
        // It may have been connected to another network.
        if let Some(nsid) = self.owners.namespace_of(&id) {
            self.ask_addresses(nsid);
        }
    }

    /// The number here of the namespace that was made for a container.
    fn namespace_of(&mut self, described: &Described) -> Option<i32> {
        if described.network_mode == NetworkMode::Shared {
            return None;
        }
        // The engine may number processes differently (weir in a container), or
        // be on another host: then another process may have this number.
        let of_process = described.pid.filter(|pid| match namespaces::container_of_process(*pid) {
            Some(id) => id == described.container.id,
            None => described.local,
        });
        let by_process = of_process.and_then(|pid| self.requests.nsid(Namespace::Pid(pid)).ok()).flatten();
        let path = described.netns_path.as_deref().filter(|_| described.local);
        by_process.or_else(|| namespaces::nsid_of_file(&mut self.requests, path?).ok().flatten())
    }
}

/// Waits for the end of the look at the processes, for ever if there is none.
async fn scanned(scan: &mut Option<Scan>) -> (HashSet<i32>, HashMap<i32, Found>) {
    match scan {
        Some(scan) => {
            // Without a look into /proc, nothing is found.
            let found = (&mut scan.task).await.ok().and_then(Result::ok).unwrap_or_default();
            (std::mem::take(&mut scan.wanted), found)
        }
        None => pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
