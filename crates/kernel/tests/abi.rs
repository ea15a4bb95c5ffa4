//! The contract of `bpf/abi.h`: its layout byte by byte, and the numbers that
//! `weir_core` knows by other names.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use libbpf_rs::btf::types::{Array, Enum, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType, HasSize};
use weir_core::event::Hook;
use weir_core::flow::{CaptureState, FlowState};
use weir_core::loss::{EventLosses, TallyReason};
use weir_core::redirect::RuleId;

const HEADER: &str = include_str!("../../../bpf/abi.h");
const GOLDEN: &str = include_str!("../../../testdata/abi.txt");

fn btf() -> Btf<'static> {
    Btf::from_path(Path::new(env!("OUT_DIR")).join("abi.bpf.o")).unwrap()
}

/// One line for each field: where it begins, how it is called, what it is.
fn layout(btf: &Btf<'_>) -> String {
    let mut structs: Vec<Struct<'_>> = btf.type_by_kind::<Struct<'_>>().collect();
    structs.sort_by_key(|found| found.name().map(std::ffi::OsStr::to_owned));
    let mut enums: Vec<Enum<'_>> = btf.type_by_kind::<Enum<'_>>().collect();
    enums.sort_by_key(|found| found.name().map(std::ffi::OsStr::to_owned));

    let mut text = format!("version {}\n", constant("ABI_VERSION"));
    for found in structs {
        writeln!(text, "\nstruct {} {} bytes", name(&found), found.size()).unwrap();
        for member in found.iter() {
            let MemberAttr::Normal { offset } = member.attr else {
                panic!("a bit field in {}", name(&found))
            };
            assert_eq!(offset % 8, 0);
            let kind = describe(btf.type_by_id(member.ty).unwrap());
            writeln!(text, "  {:>4} {} {kind}", offset / 8, member.name.unwrap().display()).unwrap();
        }
    }
    for found in enums {
        writeln!(text, "\nenum {}", name(&found)).unwrap();
        for member in found.iter() {
            writeln!(text, "  {:>4} {}", member.value, member.name.unwrap().display()).unwrap();
        }
    }
    text
}

fn name(found: &BtfType<'_>) -> String {
    found.name().unwrap().display().to_string()
}

fn describe(found: BtfType<'_>) -> String {
    let found = found.skip_mods_and_typedefs();
    match Array::try_from(found) {
        Ok(array) => format!("{}[{}]", describe(array.contained_type()), array.capacity()),
        Err(_) => name(&found),
    }
}

/// The number behind `#define NAME`.
fn constant(name: &str) -> u64 {
    let line = HEADER.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

/// The enumerators of an enum of `abi.h`: number, and name without what they have in common, in lower case.
fn enumerators(enumeration: &str, prefix: &str) -> Vec<(u8, String)> {
    let btf = btf();
    let found: Enum<'_> = btf.type_by_name(enumeration).unwrap();
    found
        .iter()
        .map(|member| {
            let name = member.name.unwrap().to_str().unwrap();
            (u8::try_from(member.value).unwrap(), name.strip_prefix(prefix).unwrap().to_lowercase())
        })
        .collect()
}

#[test]
fn the_layout_is_what_it_was() {
    let layout = layout(&btf());
    assert!(
        layout == GOLDEN,
        "bpf/abi.h is not what testdata/abi.txt says. If that is meant, raise ABI_VERSION, and write to the file:\n{layout}"
    );
}

#[test]
fn every_reason_has_its_number() {
    let mut expected = enumerators("tally_reason", "TALLY_");
    assert_eq!(expected.pop(), Some((TallyReason::ALL.len() as u8 + 1, "reasons".to_owned())));
    let known: Vec<(u8, String)> = (1..)
        .map_while(|number| Some((number, TallyReason::from_number(number)?.name().to_owned())))
        .collect();
    assert_eq!(known, expected);
    assert_eq!(TallyReason::from_number(0), None);
}

#[test]
fn every_state_has_its_number() {
    let known: Vec<(u8, String)> = (0..)
        .map_while(|number| Some((number, format!("{:?}", FlowState::from_number(number)?).to_lowercase())))
        .collect();
    assert_eq!(known, enumerators("flow_state", "FLOW_"));
}

#[test]
fn every_capture_state_has_its_number() {
    let known: Vec<(u8, String)> = (0..)
        .map_while(|number| Some((number, format!("{:?}", CaptureState::from_number(number)?))))
        .collect();
    let plain = |name: &str| name.replace('_', "");
    let expected = enumerators("capture_state", "CAPTURE_");
    let expected: Vec<(u8, String)> = expected.iter().map(|(number, name)| (*number, plain(name))).collect();
    assert_eq!(known.iter().map(|(n, name)| (*n, name.to_lowercase())).collect::<Vec<_>>(), expected);
}

#[test]
fn every_hook_has_its_number() {
    let known: Vec<(u8, String)> = (1..)
        .map_while(|number| Some((number, format!("{:?}", Hook::from_number(number)?).to_lowercase())))
        .collect();
    assert_eq!(known, enumerators("hook", "HOOK_"));
}

/// An event of any kind can find the ring full, and that has a name.
#[test]
fn every_event_has_its_loss() {
    let mut kinds = enumerators("event_kind", "EVENT_");
    assert_eq!(kinds.pop(), Some((kinds.len() as u8 + 1, "kinds".to_owned())));
    let losses = EventLosses::default();
    let named: Vec<&str> =
        losses.named().into_iter().filter_map(|(name, _)| name.strip_suffix("_ring_full")).collect();
    assert_eq!(named, kinds.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>());
}

/// Numbers of rules, as user space gives them and the programs take them apart.
#[test]
fn rules_have_their_places() {
    assert_eq!(constant("RULE_VARIANTS"), u64::from(RuleId::VARIANTS));
    assert_eq!(constant("RULE_PLACES"), u64::from(RuleId::PLACES));
}
