//! What holds for both methods.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys as sys;
use weir_core::event::Hook;
use weir_kernel::PinDirectory;
use weir_kernel::ProgramName;
use weir_kernel::attach::{AttachError, Attacher, Method, probe, rehearse, survey};
use weir_testkit::require_root;

use crate::methods;
use crate::program::{Counting, NEXT, Weir};
use crate::wire::{Wire, index, other_filter};

/// `TC_ACT_OK`: the packet passes, and no further filter sees it.
const PASS: i32 = 0;

#[test]
fn root_probe_tells_what_can_be_attached() {
    require_root!();
    let wire = Wire::new();
    wire.host.enter(|| {
        let weir = Weir::load();
        let attached = weir.attacher(Method::Tcx).attach(index("v0"), true);
        match probe().unwrap() {
            Method::Tcx => assert!(attached.is_ok(), "{attached:?}"),
            Method::Clsact => assert!(matches!(attached, Err(AttachError::NoTcx)), "{attached:?}"),
        }
    });
}

#[test]
fn root_both_directions_are_seen_until_dropped() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let weir = Weir::load();
        let attachment = wire.host.enter(|| weir.attacher(method).attach(index("v0"), true).unwrap());
        wire.ping();
        let (ingress, egress) = weir.runs();
        assert!(ingress >= 2 && egress >= 2, "{method}: {ingress} {egress}");
        let names = [(Hook::Ingress, "weir_ingress".to_owned()), (Hook::Egress, "weir_egress".to_owned())];
        assert_eq!(wire.attached(), names, "{method}");

        drop(attachment);
        assert_eq!(wire.attached(), [], "{method}");
        assert!(!wire.has_clsact(), "{method}");
        let before = weir.runs();
        wire.ping();
        assert_eq!(weir.runs(), before, "{method}");
    }
}

#[test]
fn root_devices_without_ethernet_get_their_own_programs() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let weir = Weir::load();
        let _attachment = wire.host.enter(|| weir.attacher(method).attach(index("v0"), false).unwrap());
        let names =
            [(Hook::Ingress, "weir_ingress_ip".to_owned()), (Hook::Egress, "weir_egress_ip".to_owned())];
        assert_eq!(wire.attached(), names, "{method}");
    }
}

#[test]
fn root_a_rehearsal_finds_out_without_touching_the_host() {
    require_root!();
    let wire = Wire::new();
    let weir = Weir::load();
    wire.host.enter(|| {
        for method in methods() {
            rehearse(method, |name| Some(weir.program(name).fd())).unwrap();
        }
        let tcx = rehearse(Method::Tcx, |name| Some(weir.program(name).fd()));
        assert_eq!(tcx.is_ok(), probe().unwrap() == Method::Tcx, "{tcx:?}");
        assert_eq!(survey(index("lo"), &PinDirectory::default()).unwrap(), []);
    });
}

/// Filters before and after weir's; the last one ends the chain, as those of others do.
#[test]
fn root_filters_of_others_run_and_remain() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let weir = Weir::load();
        let (early, late) = (Counting::load("early", NEXT), Counting::load("late", PASS));
        wire.host.enter(|| {
            for hook in [Hook::Ingress, Hook::Egress] {
                other_filter(&early, hook, 1, 1);
                other_filter(&late, hook, 100, 1);
            }
        });
        let attachment = wire.host.enter(|| weir.attacher(method).attach(index("v0"), true).unwrap());
        let before = (early.runs(), late.runs());
        wire.ping();
        let (ingress, egress) = weir.runs();
        assert!(ingress > 0 && egress > 0, "{method}");
        let others = (early.runs() - before.0, late.runs() - before.1);
        assert_eq!(others, (ingress + egress, ingress + egress), "{method}, before: {before:?}");

        drop(attachment);
        assert_eq!(wire.attached().len(), 4, "{method}");
        wire.ping();
        assert!(late.runs() > before.1 + ingress + egress, "{method}");
        assert!(wire.has_clsact(), "{method}");
    }
}

/// Behind a program that ends the chain, weir would see nothing: it goes to the head.
#[test]
fn root_tcx_goes_before_what_is_there() {
    require_root!();
    if probe().unwrap() != Method::Tcx {
        return;
    }
    let wire = Wire::new();
    let weir = Weir::load();
    let other = Counting::load("other", PASS);
    wire.host.enter(|| {
        let _links = [Hook::Ingress, Hook::Egress].map(|hook| tcx_link(&other, hook));
        let attachment = weir.attacher(Method::Tcx).attach(index("v0"), true).unwrap();
        let order: Vec<String> = wire.attached().into_iter().map(|(_, name)| name).collect();
        assert_eq!(order, ["weir_ingress", "other", "weir_egress", "other"]);
        wire.ping();
        let (ingress, egress) = weir.runs();
        assert!(ingress > 0 && egress > 0);
        assert_eq!(other.runs(), ingress + egress);
        drop(attachment);
        assert_eq!(survey(index("v0"), &PinDirectory::default()).unwrap().len(), 2);
    });
}

#[test]
fn root_two_weirs_do_not_disturb_each_other() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let (first, second) = (Weir::load(), Weir::load());
        let attach =
            |weir: &Weir| wire.host.enter(|| weir.attacher(method).attach(index("v0"), true).unwrap());
        let first_attachment = attach(&first);
        let second_attachment = attach(&second);
        wire.ping();
        assert!(first.runs().0 > 0 && first.runs() == second.runs(), "{method}");

        drop(first_attachment);
        assert_eq!(wire.attached().len(), 2, "{method}");
        let before = (first.runs(), second.runs());
        wire.ping();
        assert_eq!(first.runs(), before.0, "{method}");
        assert!(second.runs().0 > before.1.0, "{method}");

        drop(second_attachment);
        assert_eq!(wire.attached(), [], "{method}");
        assert!(!wire.has_clsact(), "{method}: the first one made it, the last one removes it");
    }
}

#[test]
fn root_an_interface_may_go_at_any_time() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let weir = Weir::load();
        wire.host.enter(|| {
            let attacher: Attacher = weir.attacher(method);
            let ifindex = index("v0");
            let attachment = attacher.attach(ifindex, true).unwrap();
            wire.host.ip_batch("link del v0");
            drop(attachment);
            let error = attacher.attach(ifindex, true).unwrap_err();
            assert!(error.is_gone(), "{method}: {error}");
            assert_eq!(survey(ifindex, &PinDirectory::default()).unwrap(), []);
        });
    }
}

/// The second direction finds no place: the first one must not stay.
#[test]
fn root_nothing_is_left_half_attached() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let weir = Weir::load();
        wire.host.enter(|| {
            let _links = match method {
                // A chain has room for 63 programs, each once.
                Method::Tcx => (0..63)
                    .map(|_| Counting::load("other", NEXT))
                    .map(|other| tcx_link(&other, Hook::Egress))
                    .collect(),
                // A priority has filters of one kind and protocol.
                Method::Clsact => {
                    wire.host.run("tc", &["qdisc", "add", "dev", "v0", "clsact"]);
                    let filter = "filter add dev v0 egress prio 7 protocol ip bpf flowid 1:1 bytecode";
                    let mut arguments: Vec<&str> = filter.split(' ').collect();
                    arguments.push("1,6 0 0 0");
                    wire.host.run("tc", &arguments);
                    Vec::new()
                }
            };
            let before = wire.attached();
            let error = weir.attacher(method).attach(index("v0"), true).unwrap_err();
            assert!(error.to_string().contains("weir_egress"), "{error}");
            assert!(error.to_string().contains("v0"), "{error}");
            assert_eq!(wire.attached(), before, "{method}");
        });
    }
}

fn tcx_link(program: &Counting, hook: Hook) -> OwnedFd {
    let attach_type = match hook {
        Hook::Ingress => sys::BPF_TCX_INGRESS,
        Hook::Egress => sys::BPF_TCX_EGRESS,
    };
    // SAFETY: no options are given.
    let fd = unsafe {
        sys::bpf_link_create(
            program.fd().as_raw_fd(),
            index("v0").cast_signed(),
            attach_type,
            std::ptr::null(),
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: a new descriptor, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn names_are_recognisable() {
    for name in ProgramName::ALL {
        let name = name.to_string();
        assert!(name.starts_with("weir_") && name.len() < 16, "{name} is cut by the kernel");
    }
}
