//! See `rulefile::fuzzing::selector` for what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rollgate::rulefile::fuzzing::selector(data));
