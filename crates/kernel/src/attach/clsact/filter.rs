//! The kernel's words for the qdisc and its filters.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{RTM_DELQDISC, RTM_DELTFILTER, RTM_GETQDISC, RTM_GETTFILTER, TCA_KIND, TCA_OPTIONS};
use netlink_packet_core::NLA_F_NESTED;
use weir_core::event::Hook;

use super::{BOTH, NAME_PREFIX, PRIORITY};
use crate::attach::rtnetlink::{Attribute, Attributes, Netlink, Refusal, TcMessage};

pub(super) const CLSACT: &str = "clsact";
pub(super) const BPF: &str = "bpf";

/// `TC_H_CLSACT`, which is also `TC_H_INGRESS`: a device has one of the two qdiscs, never both.
pub(super) const CLSACT_PARENT: u32 = 0xffff_fff1;
pub(super) const CLSACT_HANDLE: u32 = 0xffff_0000;
pub(super) const INGRESS_PARENT: u32 = 0xffff_fff2;
pub(super) const EGRESS_PARENT: u32 = 0xffff_fff3;

pub(super) const TCA_BPF_FD: u16 = 6;
pub(super) const TCA_BPF_NAME: u16 = 7;
pub(super) const TCA_BPF_FLAGS: u16 = 8;
pub(super) const TCA_BPF_ID: u16 = 11;
/// The program's return code is the verdict; without it, it would be a traffic class.
pub(super) const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// Every ethertype.
pub(super) const ETH_P_ALL: u16 = 0x0003;

pub(super) fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => INGRESS_PARENT,
        Hook::Egress => EGRESS_PARENT,
    }
}

/// Priority and ethertype of weir's filters, as `struct tcmsg` has them.
pub(super) fn info() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be())
}

/// What the handle of a filter of weir's says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::attach) struct Tag {
    pub(in crate::attach) instance: u32,
    pub(in crate::attach) qdisc_is_weirs: bool,
}

impl Tag {
    pub(super) fn handle(self) -> u32 {
        self.instance << 1 | u32::from(self.qdisc_is_weirs)
    }

    pub(super) fn from_handle(handle: u32) -> Self {
        Self { instance: handle >> 1, qdisc_is_weirs: handle & 1 != 0 }
    }
}

/// A filter at a hook of an interface, anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::attach) struct Filter {
    pub(in crate::attach) ifindex: u32,
    pub(in crate::attach) hook: Hook,
    pub(in crate::attach) priority: u16,
    pub(in crate::attach) handle: u32,
    /// `bpf`, `u32`, `flower`, ...
    pub(in crate::attach) kind: String,
    /// The name that a BPF program was attached under.
    pub(in crate::attach) program_name: Option<String>,
    pub(in crate::attach) program_id: Option<u32>,
}

impl Filter {
    pub(super) fn new(message: &TcMessage, hook: Hook) -> Self {
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
    pub(in crate::attach) fn tag(&self) -> Option<Tag> {
        let named = self.program_name.as_deref().is_some_and(|name| name.starts_with(NAME_PREFIX));
        (named && self.kind == BPF && self.priority == PRIORITY).then(|| Tag::from_handle(self.handle))
    }
}

/// The filters at an interface, in the order in which they run. None if it has neither qdisc, or does not exist.
pub(in crate::attach) fn filters(netlink: &mut Netlink, ifindex: u32) -> Result<Vec<Filter>, Refusal> {
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
pub(in crate::attach) fn interfaces(netlink: &mut Netlink) -> Result<Vec<u32>, Refusal> {
    let question = TcMessage { kind: RTM_GETQDISC, ..TcMessage::default() };
    let mut qdiscs = netlink.dump(&question)?;
    qdiscs.retain(|qdisc| qdisc.attributes.text(TCA_KIND).as_deref() == Some(CLSACT));
    Ok(qdiscs.into_iter().map(|qdisc| qdisc.ifindex).collect())
}

pub(super) fn qdisc(kind: u16, ifindex: u32) -> TcMessage {
    TcMessage {
        kind,
        ifindex,
        parent: CLSACT_PARENT,
        handle: CLSACT_HANDLE,
        info: 0,
        attributes: Attributes(vec![Attribute::text(TCA_KIND, CLSACT)]),
    }
}

pub(super) fn filter(kind: u16, ifindex: u32, hook: Hook, handle: u32, options: &[Attribute]) -> TcMessage {
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
pub(super) fn program_options(name: &str, program: BorrowedFd<'_>) -> [Attribute; 3] {
    [
        // A descriptor is never negative.
        Attribute::number(TCA_BPF_FD, program.as_raw_fd().cast_unsigned()),
        Attribute::text(TCA_BPF_NAME, name),
        Attribute::number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
    ]
}

/// Removes one filter of weir's. That it has gone already, by itself or with its interface, is no failure.
pub(super) fn remove(netlink: &mut Netlink, ifindex: u32, hook: Hook, handle: u32) -> Result<(), Refusal> {
    match netlink.change(filter(RTM_DELTFILTER, ifindex, hook, handle, &[]), 0) {
        // EINVAL: the qdisc has gone.
        Err(refusal) if matches!(refusal.errno(), libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// Removes the qdisc unless somebody has a filter there. Says whether it is gone.
pub(super) fn remove_unused_qdisc(netlink: &mut Netlink, ifindex: u32) -> Result<bool, Refusal> {
    if !filters(netlink, ifindex)?.is_empty() {
        return Ok(false);
    }
    match netlink.change(qdisc(RTM_DELQDISC, ifindex), 0) {
        Err(refusal) if matches!(refusal.errno(), libc::ENOENT | libc::ENODEV | libc::EINVAL) => Ok(false),
        result => result.map(|()| true),
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
