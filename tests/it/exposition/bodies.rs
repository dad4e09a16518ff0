//! Whole bodies: the OpenMetrics suite and bodies of real programs, which live beside the
//! repository and not in it, and hostile bodies made here.
//!
//! Where that data is absent its tests pass without having shown anything, except when `CI` is set.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rollgate::source::exposition::{Format, Limits, Refusal, Wanted, read, visit};

/// A folder of the data beside the repository, if it is there.
pub fn data(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/exposition").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "the data is absent: {}", path.display());
    eprintln!("skipped: the data is absent: {}", path.display());
    None
}

pub fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Invalid cases of the suite that are wrong in syntax; the others are wrong in meaning (families
/// that clash, impossible histograms, misplaced metadata), which this reader does not judge.
const REFUSED_BY_SYNTAX: usize = 88;

#[test]
fn the_openmetrics_suite_is_read_or_refused_by_name() {
    let Some(suite) = data("openmetrics-suite/tests/testdata/parsers") else { return };
    let (mut valid, mut invalid, mut accepted) = (0, 0, Vec::new());
    for case in sorted(&suite) {
        let name = case.file_name().expect("a name").to_string_lossy().into_owned();
        let body = fs::read(case.join("metrics")).expect("a body");
        let told = fs::read(case.join("test.json")).expect("a description");
        let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        let read = read(&body, Format::OpenMetrics, &Wanted::all(), |_| true, &Limits::default());
        if told["shouldParse"] == true {
            valid += 1;
            let read = read.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            assert_eq!(read.refused, None, "{name}");
            continue;
        }
        invalid += 1;
        match read {
            Err(refusal) => {
                assert!(refusal.to_string().contains("expected") || !refusal.hint().is_empty())
            }
            Ok(read) => match read.refused {
                Some(refused) => assert!(refused.first.contains("expected"), "{}", refused.first),
                None => accepted.push(name),
            },
        }
    }
    assert_eq!((valid, invalid), (44, 167));
    assert_eq!(invalid - accepted.len(), REFUSED_BY_SYNTAX, "accepted: {accepted:#?}");
}

#[test]
fn bodies_of_real_programs_are_read_whole() {
    let Some(live) = data("live") else { return };
    let mut bodies = 0;
    for path in sorted(&live) {
        if path.extension().is_none_or(|extension| extension != "prom") {
            continue;
        }
        bodies += 1;
        let body = fs::read(&path).expect("a body");
        let lines = || body.split(|byte| *byte == b'\n');
        let naive = lines().filter(|line| !line.is_empty() && !line.starts_with(b"#")).count();
        let all = read(&body, Format::Text, &Wanted::all(), |_| true, &Limits::default());
        let all = all.unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
        assert_eq!((all.samples.len(), all.refused), (naive, None), "{}", path.display());
        // Each name alone gives what reading everything gives of it.
        let mut names: Vec<&str> = all.samples.iter().map(|sample| &*sample.name).collect();
        names.dedup();
        for name in names.iter().step_by(7) {
            let wanted = Wanted::names([name]);
            let some = read(&body, Format::Text, &wanted, |_| true, &Limits::default());
            let some = some.expect("reads");
            let expected: Vec<_> =
                all.samples.iter().filter(|sample| *sample.name == **name).cloned().collect();
            // NaN differs from itself, so the words are compared.
            assert_eq!(format!("{:?}", some.samples), format!("{expected:?}"), "{name}");
        }
    }
    assert_eq!(bodies, 14);
}

/// Work on a hostile body must grow with its size and not with its square: the slowest of these
/// takes some 0.1 s unoptimised, where a square would take minutes.
#[test]
fn hostile_bodies_cost_time_in_proportion_to_their_size() {
    const NAME: &str = "hostile_metric_name_total";
    let limits = Limits { body_bytes: 1 << 22, ..Limits::default() };
    let filled = |unit: &str| unit.repeat((1 << 22) / unit.len());
    for body in [
        filled("x"),
        filled(&format!("{NAME} ")),
        filled(&format!("\"{NAME}\"")),
        format!("{{{}", filled(&format!("\"{NAME}\"")).split_off(2)),
        format!(" {}", filled(&format!("{NAME}   ")).split_off(1)),
        filled(&format!("{NAME}\n")),
        filled(&format!("{NAME}{{a=\"\\n")),
        filled("\n"),
        filled(" "),
        filled("{"),
        filled("m{\n"),
    ] {
        for wanted in [Wanted::all(), Wanted::names([NAME]), Wanted::names([NAME, "m"])] {
            let begin = Instant::now();
            let found = visit(body.as_bytes(), Format::Text, &wanted, &limits, |_| {});
            let took = begin.elapsed();
            if let Ok(report) = found {
                assert_eq!(report.samples, 0);
            }
            assert!(took < Duration::from_secs(10), "{took:?} for {:?}", &body[..40]);
        }
    }
}

/// A line of 100 MB and a series of a million labels: what they cost is what the limits say.
#[test]
fn oversized_lines_and_label_sets_are_refused() {
    let huge = vec![b'x'; 100 << 20];
    let found = read(&huge, Format::Text, &Wanted::all(), |_| true, &Limits::default());
    assert_eq!(found, Err(Refusal::TooLarge { found: 100 << 20, limit: 16 << 20 }));

    let wide = Limits { body_bytes: usize::MAX, ..Limits::default() };
    let mut body = b"good 1\n".to_vec();
    body.extend_from_slice(&huge);
    let found = read(&body, Format::Text, &Wanted::all(), |_| true, &wide).expect("reads");
    assert_eq!((found.samples.len(), found.refused.map(|it| it.lines)), (1, Some(1)));

    let labels: String = (0..1_000_000).map(|index| format!("l{index}=\"\",")).collect();
    let body = format!("good 1\nwide_series_total{{{labels}}} 1\n");
    let unlimited = Limits { line_bytes: usize::MAX, ..wide };
    let found = read(body.as_bytes(), Format::Text, &Wanted::all(), |_| true, &unlimited);
    let refused = found.expect("reads").refused.expect("a refused line");
    assert!(refused.first.contains("expected fewer labels"), "{}", refused.first);
    assert!(refused.first.len() < 200, "{}", refused.first);
}
