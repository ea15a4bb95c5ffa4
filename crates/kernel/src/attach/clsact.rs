//! clsact: filters of a qdisc, for kernels without TCX. Filters outlive the process that made them, so each one
//! says whose it is:
//!
//! - its priority is [`PRIORITY`] and its program's name begins with `weir_`: then it is a weir's;
//! - its handle holds the number of the running weir that made it (see [`super::instance`]), and whether the qdisc
//!   itself is weir's to remove.
//!
//! The qdisc goes with the last filter of weir's if a weir made it and nobody else has a filter there. A weir that
//! finds the mark on another weir's filter at the same interface carries it on.

mod filter;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{RTM_NEWQDISC, RTM_NEWTFILTER};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use weir_core::event::Hook;

use super::instance::{Instance, Turns, is_alive, is_pinned};
use super::rtnetlink::{Netlink, Refusal};
use super::{AttachError, Program};
use filter::{Tag, filter, program_options, qdisc, remove, remove_unused_qdisc};

pub(super) use filter::{Filter, filters, interfaces};

/// The priority of weir's filters. Filters run from the lowest priority up, so a low one sees packets that others
/// drop; 1 is what most programs and examples use, and one priority takes filters of one kind only. At 7 weir comes
/// early without being in anybody's way.
pub const PRIORITY: u16 = 7;

/// What the names of weir's programs begin with.
pub(super) const NAME_PREFIX: &str = "weir_";

const BOTH: [Hook; 2] = [Hook::Ingress, Hook::Egress];

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

/// The names of the programs of all filters that stay.
pub(super) fn pinned_names() -> Result<Vec<String>, AttachError> {
    let names = || {
        let mut netlink = Netlink::open()?;
        let mut names = Vec::new();
        for ifindex in interfaces(&mut netlink)? {
            let filters = filters(&mut netlink, ifindex)?.into_iter();
            let pinned = filters.filter(|filter| filter.tag().is_some_and(|tag| is_pinned(tag.instance)));
            names.extend(pinned.filter_map(|filter| filter.program_name));
        }
        Ok(names)
    };
    names().map_err(|refusal| AttachError::refused("look at the filters that stay", refusal))
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
        programs: [Program<'_>; 2],
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
        programs: [Program<'_>; 2],
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
        for Program { name, fd } in programs {
            let hook = name.hook;
            let options = program_options(&name.to_string(), fd);
            let request = filter(RTM_NEWTFILTER, ifindex, hook, handle, &options);
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
