//! Conversations of any protocol: also of several, one after the other.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::talk(input, None));
