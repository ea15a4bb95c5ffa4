//! clsact: filters of a qdisc, for kernels without TCX. Filters outlive the process that made them, so each one
//! says whose it is:
//!
//! - its priority is [`PRIORITY`] and its program's name begins with `weir_`: then it is a weir's;
//! - its handle holds the number of the running weir that made it (see [`super::instance`]), and whether the qdisc
//!   itself is weir's to remove.
//!
//! The qdisc goes with the last filter of weir's if a weir made it and nobody else has a filter there. A weir that
//! finds the mark on another weir's filter at the same interface carries it on.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use weir_core::event::Hook;

use super::AttachError;
use super::instance::{Instance, Turns, is_alive, is_pinned};
use super::rtnetlink::{
    Attribute, Attributes, Netlink, RTM_DELQDISC, RTM_DELTFILTER, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC,
    RTM_NEWTFILTER, Refusal, TcMessage,
};

/// The priority of weir's filters. Filters run from the lowest priority up, so a low one sees packets that others
/// drop; 1 is what most programs and examples use, and one priority takes filters of one kind only. At 7 weir comes
/// early without being in anybody's way.
pub const PRIORITY: u16 = 7;

/// What the names of weir's programs begin with.
pub(super) const NAME_PREFIX: &str = "weir_";

const BOTH: [Hook; 2] = [Hook::Ingress, Hook::Egress];

const CLSACT: &str = "clsact";
const BPF: &str = "bpf";

/// `TC_H_CLSACT`, which is also `TC_H_INGRESS`: a device has one of the two qdiscs, never both.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS_PARENT: u32 = 0xffff_fff2;
const EGRESS_PARENT: u32 = 0xffff_fff3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's return code is the verdict; without it, it would be a traffic class.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// Every ethertype.
const ETH_P_ALL: u16 = 0x0003;

fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => INGRESS_PARENT,
        Hook::Egress => EGRESS_PARENT,
    }
}

/// Priority and ethertype of weir's filters, as `struct tcmsg` has them.
fn info() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be())
}

/// What the handle of a filter of weir's says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) instance: u32,
    pub(super) qdisc_is_weirs: bool,
}

impl Tag {
    fn handle(self) -> u32 {
        self.instance << 1 | u32::from(self.qdisc_is_weirs)
    }

    fn from_handle(handle: u32) -> Self {
        Self { instance: handle >> 1, qdisc_is_weirs: handle & 1 != 0 }
    }
}

/// A filter at a hook of an interface, anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) ifindex: u32,
    pub(super) hook: Hook,
    pub(super) priority: u16,
    pub(super) handle: u32,
    /// `bpf`, `u32`, `flower`, ...
    pub(super) kind: String,
    /// The name that a BPF program was attached under.
    pub(super) program_name: Option<String>,
    pub(super) program_id: Option<u32>,
}

impl Filter {
    fn new(message: &TcMessage, hook: Hook) -> Self {
        let options = message.attributes.nested(TCA_OPTIONS);
        Self {
            ifindex: message.ifindex,
            hook,
            priority: (message.info >> 16) as u16,
            handle: message.handle,
            kind: message.attributes.text(TCA_KIND).unwrap_or_default(),
            program_name: options.text(TCA_BPF_NAME),
            program_id: options.number(TCA_BPF_ID),
        }
    }

    /// What it says about itself, if it is a weir's.
    pub(super) fn tag(&self) -> Option<Tag> {
        let named = self.program_name.as_deref().is_some_and(|name| name.starts_with(NAME_PREFIX));
        (named && self.kind == BPF && self.priority == PRIORITY).then(|| Tag::from_handle(self.handle))
    }
}

/// The filters at an interface, in the order in which they run. None if it has neither qdisc, or does not exist.
pub(super) fn filters(netlink: &mut Netlink, ifindex: u32) -> Result<Vec<Filter>, Refusal> {
    let mut filters = Vec::new();
    for hook in BOTH {
        let question =
            TcMessage { kind: RTM_GETTFILTER, ifindex, parent: parent(hook), ..TcMessage::default() };
        let found = netlink.dump(&question)?;
        // A message without a handle announces a priority; its filters follow, each with a handle.
        filters.extend(found.iter().filter(|message| message.handle != 0).map(|m| Filter::new(m, hook)));
    }
    Ok(filters)
}

/// The interfaces of the namespace that have a clsact qdisc.
pub(super) fn interfaces(netlink: &mut Netlink) -> Result<Vec<u32>, Refusal> {
    let question = TcMessage { kind: RTM_GETQDISC, ..TcMessage::default() };
    let mut qdiscs = netlink.dump(&question)?;
    qdiscs.retain(|qdisc| qdisc.attributes.text(TCA_KIND).as_deref() == Some(CLSACT));
    Ok(qdiscs.into_iter().map(|qdisc| qdisc.ifindex).collect())
}

fn qdisc(kind: u16, ifindex: u32) -> TcMessage {
    TcMessage {
        kind,
        ifindex,
        parent: CLSACT_PARENT,
        handle: CLSACT_HANDLE,
        info: 0,
        attributes: Attributes(vec![Attribute::text(TCA_KIND, CLSACT)]),
    }
}

fn filter(kind: u16, ifindex: u32, hook: Hook, handle: u32, options: &[Attribute]) -> TcMessage {
    let mut attributes = vec![Attribute::text(TCA_KIND, BPF)];
    if !options.is_empty() {
        attributes.push(Attribute::nested(TCA_OPTIONS | NLA_F_NESTED, options));
    }
    TcMessage {
        kind,
        ifindex,
        handle,
        parent: parent(hook),
        info: info(),
        attributes: Attributes(attributes),
    }
}

/// What a filter runs; the name is what people see in `tc filter show`.
fn program_options(name: &str, program: BorrowedFd<'_>) -> [Attribute; 3] {
    [
        // A descriptor is never negative.
        Attribute::number(TCA_BPF_FD, program.as_raw_fd().cast_unsigned()),
        Attribute::text(TCA_BPF_NAME, name),
        Attribute::number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
    ]
}

/// Removes one filter of weir's. That it has gone already, by itself or with its interface, is no failure.
fn remove(netlink: &mut Netlink, ifindex: u32, hook: Hook, handle: u32) -> Result<(), Refusal> {
    match netlink.change(filter(RTM_DELTFILTER, ifindex, hook, handle, &[]), 0) {
        // EINVAL: the qdisc has gone.
        Err(refusal) if matches!(refusal.errno(), libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// Removes the qdisc unless somebody has a filter there. Says whether it is gone.
fn remove_unused_qdisc(netlink: &mut Netlink, ifindex: u32) -> Result<bool, Refusal> {
    if !filters(netlink, ifindex)?.is_empty() {
        return Ok(false);
    }
    match netlink.change(qdisc(RTM_DELQDISC, ifindex), 0) {
        Err(refusal) if matches!(refusal.errno(), libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(false),
        result => result.map(|()| true),
    }
}

/// What [`clean`] found and did.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    pub(super) removed: Vec<Filter>,
    /// Interfaces whose clsact qdisc was removed too.
    pub(super) qdiscs: Vec<u32>,
    /// Filters of weirs that run.
    pub(super) kept: Vec<Filter>,
}

/// Removes those filters of weir's at the interface whose instance `is_dead`, and the qdisc if it is weir's and
/// nobody uses it.
fn clean(
    netlink: &mut Netlink,
    ifindex: u32,
    is_dead: impl Fn(u32) -> bool,
    cleaned: &mut Cleaned,
) -> Result<(), Refusal> {
    let mut qdisc_is_weirs = false;
    for filter in filters(netlink, ifindex)? {
        match filter.tag() {
            Some(tag) if is_dead(tag.instance) => {
                remove(netlink, ifindex, filter.hook, filter.handle)?;
                qdisc_is_weirs |= tag.qdisc_is_weirs;
                cleaned.removed.push(filter);
            }
            Some(_) => cleaned.kept.push(filter),
            None => {}
        }
    }
    if qdisc_is_weirs && remove_unused_qdisc(netlink, ifindex)? {
        cleaned.qdiscs.push(ifindex);
    }
    Ok(())
}

/// [`clean`] at every interface of the calling thread's network namespace.
pub(super) fn clean_all(is_dead: impl Fn(u32) -> bool) -> Result<Cleaned, AttachError> {
    let clean_all = || {
        let turns = Turns::new()?;
        let mut netlink = Netlink::open()?;
        let mut cleaned = Cleaned::default();
        let _turn = turns.take();
        for ifindex in interfaces(&mut netlink)? {
            clean(&mut netlink, ifindex, &is_dead, &mut cleaned)?;
        }
        Ok(cleaned)
    };
    clean_all()
        .map_err(|refusal| AttachError::refused("remove the filters of weirs that have ended", refusal))
}

/// This process's filters in one network namespace.
#[derive(Debug)]
pub(super) struct Clsact {
    netlink: Mutex<Netlink>,
    turns: Turns,
    instance: Instance,
}

impl Clsact {
    /// Takes a number and removes what weirs that were killed have left behind.
    pub(super) fn start() -> Result<Self, AttachError> {
        let begin = |error| AttachError::new("begin with clsact", error);
        let instance = Instance::claim().map_err(begin)?;
        // Nobody held our number until now, so what carries it is from a dead one as well.
        clean_all(|number| number == instance.number() || !is_alive(number))?;
        let netlink = Netlink::open().map_err(begin)?;
        Ok(Self { netlink: Mutex::new(netlink), turns: Turns::new().map_err(begin)?, instance })
    }

    /// For filters that stay. What weirs that were killed have left behind is removed.
    pub(super) fn pinned() -> Result<Self, AttachError> {
        let begin = |error| AttachError::new("begin with clsact", error);
        clean_all(|number| !is_alive(number))?;
        let netlink = Netlink::open().map_err(begin)?;
        let instance = Instance::pinned();
        Ok(Self { netlink: Mutex::new(netlink), turns: Turns::new().map_err(begin)?, instance })
    }

    /// Puts programs in the place of those that filters with this number run, by the names that they were attached
    /// under. The interfaces of these filters.
    pub(super) fn replace<'a>(
        &self,
        program: impl Fn(&str) -> Option<BorrowedFd<'a>>,
    ) -> Result<Vec<u32>, AttachError> {
        let mut netlink = self.netlink();
        let _turn = self.turns.take();
        let mut replace = || {
            let mut replaced = Vec::new();
            for ifindex in interfaces(&mut netlink)? {
                for found in filters(&mut netlink, ifindex)? {
                    let own = found.tag().is_some_and(|tag| tag.instance == self.instance.number());
                    let name = found.program_name.as_deref().unwrap_or_default();
                    let Some(program) = program(name).filter(|_| own) else { continue };
                    let request = filter(
                        RTM_NEWTFILTER,
                        ifindex,
                        found.hook,
                        found.handle,
                        &program_options(name, program),
                    );
                    netlink.change(request, NLM_F_CREATE)?;
                    replaced.push(ifindex);
                }
            }
            Ok(replaced)
        };
        replace().map_err(|refusal| AttachError::refused("replace the programs of filters", refusal))
    }

    fn netlink(&self) -> MutexGuard<'_, Netlink> {
        // A conversation that a panic broke off is recognised by its sequence numbers.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a program to each hook, or nothing.
    pub(super) fn attach(
        self: &Arc<Self>,
        ifindex: u32,
        programs: [(Hook, String, BorrowedFd<'_>); 2],
    ) -> Result<Filters, AttachError> {
        let mut netlink = self.netlink();
        let _turn = self.turns.take();
        let made = ensure_qdisc(&mut netlink, ifindex)?;
        let mut attached =
            Filters { clsact: Arc::clone(self), ifindex, qdisc_is_weirs: made, hooks: Vec::new() };
        let result = self.fill(&mut netlink, &mut attached, made, programs);
        if result.is_err() {
            // Through the conversation that is open; dropping would wait for it.
            attached.remove(&mut netlink);
        }
        result.map(|()| attached)
    }

    fn fill(
        &self,
        netlink: &mut Netlink,
        attached: &mut Filters,
        made: bool,
        programs: [(Hook, String, BorrowedFd<'_>); 2],
    ) -> Result<(), AttachError> {
        let ifindex = attached.ifindex;
        let refused = |what: &str| {
            let what = what.to_owned();
            move |refusal| {
                AttachError::refused_at(ifindex, |name| format!("{what} {name} with clsact"), refusal)
            }
        };
        if !made {
            let found = filters(netlink, ifindex).map_err(refused("look at the filters of"))?;
            attached.qdisc_is_weirs = found.iter().filter_map(Filter::tag).any(|tag| tag.qdisc_is_weirs);
        }
        let handle = attached.tag().handle();
        for (hook, name, program) in programs {
            let request = filter(RTM_NEWTFILTER, ifindex, hook, handle, &program_options(&name, program));
            netlink.change(request, NLM_F_CREATE | NLM_F_EXCL).map_err(|refusal| match refusal.errno() {
                libc::ENOENT => AttachError::MissingInKernel { part: "cls_bpf", reason: refusal.to_string() },
                _ => refused(&format!("attach {name} (priority {PRIORITY}) to the {hook} of"))(refusal),
            })?;
            attached.hooks.push(hook);
        }
        if !made {
            let dead = |number| number != self.instance.number() && !is_alive(number);
            clean(netlink, ifindex, dead, &mut Cleaned::default())
                .map_err(refused("remove filters of a weir that has ended from"))?;
        }
        Ok(())
    }
}

/// Sees to it that the interface has a clsact qdisc. Says whether it had none.
fn ensure_qdisc(netlink: &mut Netlink, ifindex: u32) -> Result<bool, AttachError> {
    let refused = |refusal: Refusal| {
        let action = |name: &str| format!("give {name} a clsact qdisc");
        AttachError::refused_at(ifindex, action, refusal)
    };
    match netlink.change(qdisc(RTM_NEWQDISC, ifindex), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => return Ok(true),
        Err(refusal) if refusal.errno() == libc::EEXIST => {}
        Err(refusal) if refusal.errno() == libc::ENOENT => {
            return Err(AttachError::MissingInKernel { part: "sch_ingress", reason: refusal.to_string() });
        }
        Err(refusal) => return Err(refused(refusal)),
    }
    // The device has a qdisc in that place: clsact, or the older `ingress`, which would take a filter for egress
    // without a word and run it at ingress. A change that changes nothing tells, since it must name the right kind.
    netlink.change(qdisc(RTM_NEWQDISC, ifindex), 0).map(|()| false).map_err(|refusal| match refusal.errno() {
        libc::EINVAL => AttachError::IngressQdisc { interface: super::interface_name(ifindex) },
        _ => refused(refusal),
    })
}

/// This process's filters at one interface, until dropped; or filters that stay.
#[derive(Debug)]
pub(super) struct Filters {
    clsact: Arc<Clsact>,
    ifindex: u32,
    qdisc_is_weirs: bool,
    hooks: Vec<Hook>,
}

impl Filters {
    fn tag(&self) -> Tag {
        Tag { instance: self.clsact.instance.number(), qdisc_is_weirs: self.qdisc_is_weirs }
    }

    fn remove(&mut self, netlink: &mut Netlink) {
        let handle = self.tag().handle();
        for hook in self.hooks.drain(..) {
            // What cannot be removed here stays recognisable as ours: the next start or `weir down` removes it.
            let _ = remove(netlink, self.ifindex, hook, handle);
        }
        if std::mem::take(&mut self.qdisc_is_weirs) {
            let _ = remove_unused_qdisc(netlink, self.ifindex);
        }
    }
}

impl Drop for Filters {
    fn drop(&mut self) {
        if is_pinned(self.clsact.instance.number()) || (self.hooks.is_empty() && !self.qdisc_is_weirs) {
            return;
        }
        let clsact = Arc::clone(&self.clsact);
        let mut netlink = clsact.netlink();
        let _turn = clsact.turns.take();
        self.remove(&mut netlink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_named(name: &str, priority: u16, handle: u32) -> Filter {
        Filter {
            ifindex: 3,
            hook: Hook::Ingress,
            priority,
            handle,
            kind: BPF.to_owned(),
            program_name: Some(name.to_owned()),
            program_id: Some(1),
        }
    }

    #[test]
    fn a_handle_says_whose_it_is() {
        for (instance, qdisc_is_weirs) in [(1, false), (1, true), (1024, true)] {
            let tag = Tag { instance, qdisc_is_weirs };
            assert_eq!(filter_named("weir_ingress", PRIORITY, tag.handle()).tag(), Some(tag));
        }
    }

    #[test]
    fn ours_needs_name_and_priority() {
        assert!(filter_named("weir_ingress", 1, 2).tag().is_none());
        assert!(filter_named("cil_from_netdev", PRIORITY, 2).tag().is_none());
        assert!(Filter { program_name: None, ..filter_named("", PRIORITY, 2) }.tag().is_none());
        assert!(Filter { kind: "u32".to_owned(), ..filter_named("weir_x", PRIORITY, 2) }.tag().is_none());
    }
}
