//! Whose qdisc and whose filters.

use weir_core::event::Hook;
use weir_kernel::PinDirectory;
use weir_kernel::attach::{AttachError, CLSACT_PRIORITY, Method, Owner, remove_ours, survey, survey_all};
use weir_testkit::require_root;

use crate::program::{Counting, NEXT, Weir};
use crate::wire::{Wire, index, other_filter};

/// Who made the qdisc, whether somebody else has a filter at the end, and whether the qdisc stays.
#[test]
fn root_the_qdisc_stays_where_it_is_not_ours_or_is_used() {
    require_root!();
    for (somebody_made_it, used_later, stays) in
        [(false, false, false), (false, true, true), (true, false, true), (true, true, true)]
    {
        let wire = Wire::new();
        let weir = Weir::load();
        let other = Counting::load("other", NEXT);
        if somebody_made_it {
            wire.host.run("tc", &["qdisc", "add", "dev", "v0", "clsact"]);
        }
        let attachment = wire.host.enter(|| weir.attacher(Method::Clsact).attach(index("v0"), true).unwrap());
        if used_later {
            wire.host.enter(|| other_filter(&other, Hook::Egress, 50, 1));
        }
        drop(attachment);
        assert_eq!(wire.has_clsact(), stays, "made by somebody: {somebody_made_it}, used: {used_later}");
        assert_eq!(wire.attached().len(), usize::from(used_later));
    }
}

/// A second weir that came when the first one's qdisc was there already takes the duty over, also from one
/// that came in between.
#[test]
fn root_the_last_weir_removes_the_qdisc() {
    require_root!();
    let wire = Wire::new();
    let attach =
        |weir: &Weir| wire.host.enter(|| weir.attacher(Method::Clsact).attach(index("v0"), true).unwrap());
    let weirs = [Weir::load(), Weir::load(), Weir::load()];
    let first = attach(&weirs[0]);
    let second = attach(&weirs[1]);
    drop(first);
    let third = attach(&weirs[2]);
    drop(second);
    assert!(wire.has_clsact());
    wire.ping();
    assert!(weirs[2].runs().0 > 0);
    drop(third);
    assert!(!wire.has_clsact());
}

/// On the older `ingress` qdisc, a filter for egress would run at ingress.
#[test]
fn root_an_ingress_qdisc_is_refused_with_a_reason() {
    require_root!();
    let wire = Wire::new();
    let weir = Weir::load();
    wire.host.run("tc", &["qdisc", "add", "dev", "v0", "ingress"]);
    let error = wire.host.enter(|| weir.attacher(Method::Clsact).attach(index("v0"), true).unwrap_err());
    assert!(matches!(error, AttachError::IngressQdisc { .. }), "{error}");
    assert!(wire.host.run("tc", &["qdisc", "show", "dev", "v0"]).contains("ingress"));
    assert_eq!(wire.attached(), []);
}

/// Name, or priority, or both are somebody else's.
#[test]
fn root_only_what_is_weirs_is_removed() {
    require_root!();
    let wire = Wire::new();
    let same_name = Counting::load("weir_ingress", NEXT);
    let same_priority = Counting::load("other", NEXT);
    wire.host.enter(|| {
        other_filter(&same_name, Hook::Ingress, 1, 9);
        // The handle of a weir that does not run, which owned the qdisc.
        other_filter(&same_priority, Hook::Ingress, u32::from(CLSACT_PRIORITY), 0x7ff);
        let found = survey(index("v0"), &PinDirectory::default()).unwrap();
        assert!(
            found.iter().all(|program| program.owner == Owner::Other && program.method == Method::Clsact),
            "{found:?}"
        );
        let removal = remove_ours(true, &PinDirectory::default()).unwrap();
        assert!(removal.removed.is_empty() && removal.left.is_empty(), "{removal:?}");
        assert_eq!(survey_all(&PinDirectory::default()).unwrap(), found);
    });
    assert!(wire.has_clsact());
}
