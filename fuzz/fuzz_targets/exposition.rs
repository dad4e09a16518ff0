//! A metrics body in each format: it is read or refused, and whoever asks for one name gets what
//! whoever asks for all gets of that name.
#![no_main]

use rollgate::source::exposition::{Format, Limits, Wanted, read, read_protobuf};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits { samples: 2_000, line_bytes: 2_000, ..Limits::default() };
    for format in [Format::Text, Format::OpenMetrics] {
        let all = read(data, format, &Wanted::all(), |_| true, &limits);
        let some = read(data, format, &Wanted::names(["a"]), |_| true, &limits);
        if let (Ok(all), Ok(some)) = (all, some) {
            // By debug text: a NaN is not equal to itself.
            let named = |body: &[rollgate::signal::sample::Sample]| {
                let of_a = body.iter().filter(|sample| &*sample.name == "a");
                of_a.map(|sample| format!("{sample:?}")).collect::<Vec<_>>()
            };
            assert_eq!(named(&all.samples), named(&some.samples));
        }
    }
    let _ = read_protobuf(data, &Wanted::all(), &limits);
});
