//! The shared types of `bpf/abi.h`, as plain old data.
//!
//! Generated from BTF; nothing is written twice. Enums of the header are
//! transparent integers here, so that any bytes are valid values.

pub(crate) use crate::skeleton::abi::types::*;

/// `ABI_VERSION` of `bpf/abi.h`.
pub(crate) const VERSION: &str = env!("ABI_VERSION");

/// Types of `bpf/abi.h`: integers and arrays of integers only.
///
/// # Safety
/// Implement only for `repr(C)` types for which every bit pattern is valid.
pub(crate) unsafe trait Pod: Copy + Default {}

macro_rules! pod {
    ($($name:ident),*) => {$(
        // SAFETY: generated from abi.h, which allows fixed-width integers and
        // arrays of them only (checked by the golden bytes in tests/abi.rs).
        unsafe impl Pod for $name {}
    )*};
}

pod!(
    event,
    event_open,
    event_reopen,
    event_close,
    event_packet,
    event_dns,
    event_payload,
    capture,
    flow,
    flow_key,
    tally,
    tally_key
);
pod!(redirect_set, redirect_rule, redirect_target, redirect_client, redirect_counters, translation);
pod!(redirect_asker, rule_bytes);
pod!(place, interface_place, forged_source);

/// What stands before a key in the kernel's hash tables (`struct htab_elem`, kernel/bpf/hashtab.c: the same from 5.10
/// to 6.18, where pointers have 8 bytes). Entries lie in a row.
const TABLE_KEY_OFFSET: usize = 48;
const CACHE_LINE_BYTES: usize = 64;

// The two directions of a flow are counted by different processors: on one line they would take it from each other
// packet by packet, some 100 ns each time.
const _: () = {
    let value_offset = TABLE_KEY_OFFSET + size_of::<flow_key>();
    assert!((value_offset + size_of::<flow>()).is_multiple_of(CACHE_LINE_BYTES));
    assert!((value_offset + std::mem::offset_of!(flow, direction)).is_multiple_of(CACHE_LINE_BYTES));
    assert!(size_of::<flow_direction>() == CACHE_LINE_BYTES);
    // Lines come in pairs: who reads one may be given its neighbour too, and takes it from whoever writes there. So what
    // is read of every packet, and of every record of payload, stands further away than that from both directions.
    let often_read_end = value_offset + std::mem::offset_of!(flow, first_seq) + size_of::<[u32; 2]>();
    assert!(often_read_end + CACHE_LINE_BYTES <= value_offset + std::mem::offset_of!(flow, direction));
};

/// The value at the start of `bytes`, or `None` if there are too few.
pub(crate) fn from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, T is Pod, and the read is unaligned.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a value. Padding is explicit in abi.h, so all are initialised.
pub(crate) fn as_bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: T is Pod without implicit padding; the slice borrows `value`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}
