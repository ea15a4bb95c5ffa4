//! HTTP/2 and gRPC.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_fuzz::talk(input, Some("http2")));
