//! See `rulefile::fuzzing::condition` for what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rollgate::rulefile::fuzzing::condition(data));
