//! Tests of the way from a metrics server's answers to instance readings.

use regex::Regex;

use super::*;
use crate::{
    signal::spec::{MatchTest, Matcher},
    source::prometheus_answer::Point,
};

fn selector(name: &str, matchers: Vec<(&str, MatchTest)>) -> Selector {
    let matchers = matchers
        .into_iter()
        .map(|(label, test)| Matcher { label: label.to_owned(), test })
        .collect();
    Selector { name: name.to_owned(), matchers }
}

fn selection(selectors: Vec<Selector>) -> Selection {
    Selection { any_of: selectors }
}

#[test]
fn selectors_keep_their_matchers_and_get_the_arms() {
    let check = |selector: Selector, suffix: &str, arm: &str, expected: &str| {
        assert_eq!(series_text(&selector, suffix, bare(arm)), expected);
    };
    check(selector("up", vec![]), "", "", "up{}");
    check(selector("h", vec![]), "_bucket", "{version=\"v2\",}", "h_bucket{version=\"v2\"}");
    let regex = MatchTest::Regex("5\\d.|\"".into(), Regex::new("5..").unwrap());
    let odd = MatchTest::NotEqual("a\"b\\c\nd".into());
    check(
        selector("r", vec![("code", regex), ("route", odd)]),
        "",
        " a=\"b\" ",
        "r{code=~\"5\\\\d.|\\\"\",route!=\"a\\\"b\\\\c\\nd\",a=\"b\"}",
    );
}

#[test]
fn a_bare_selector_covers_its_metric() {
    let errors = selector("r", vec![("code", MatchTest::Equal("500".into()))]);
    let reads = Reads::Ratio {
        events: selection(vec![errors]),
        total: selection(vec![selector("r", vec![])]),
    };
    let specs = [SignalSpec { name: "errors".into(), reads }];
    let asked: Vec<_> =
        wanted(&specs).iter().map(|wanted| series_text(wanted.selector, "", "")).collect();
    assert_eq!(asked, ["r{}"]);
}

fn series(name: &str, labels: &[(&str, &str)], points: &[(i64, f64)]) -> Series {
    let mut metric: BTreeMap<_, _> = labels.iter().copied().collect();
    metric.insert("__name__", name);
    let values: Vec<_> =
        points.iter().map(|(ms, value)| (*ms as f64 / 1000.0, value.to_string())).collect();
    serde_json::from_value(serde_json::json!({ "metric": metric, "values": values })).unwrap()
}

const RANGE: Duration = Duration::from_secs(180);

/// Samples of an instance by name, after all series were taken at `now_ms`.
fn read(series: &[(usize, Series)], now_ms: i64) -> (i64, Result<Vec<(String, f64)>, Missing>) {
    let mut instance = Instance::default();
    for (question, series) in series {
        instance.take(*question, "m", series);
    }
    let (at, samples) = instance.samples("i:1", RANGE, Time(now_ms), &mut Vec::new());
    let samples = samples.map(|samples| {
        samples.into_iter().map(|sample| (sample.name.to_string(), sample.value)).collect()
    });
    (at.0, samples)
}

#[test]
fn all_samples_are_of_the_scrape_that_every_question_saw() {
    let events = series("events", &[], &[(1000, 1.0), (2000, 2.0), (3000, 3.0)]);
    // A scrape came in between the two questions.
    let total = series("total", &[], &[(2000, 20.0), (3000, 30.0), (4000, 40.0)]);
    let (at, samples) = read(&[(0, events), (1, total)], 4100);
    assert_eq!(at, 3000);
    assert_eq!(samples.unwrap(), [("events".to_owned(), 3.0), ("total".to_owned(), 30.0)]);
}

#[test]
fn an_ended_series_is_absent_and_holds_nothing_back() {
    let ended = series("ended", &[], &[(1000, 1.0), (2000, 1.0)]);
    let going = series("going", &[], &[(8000, 8.0), (9000, 9.0)]);
    let (at, samples) = read(&[(0, ended), (1, going)], 9500);
    assert_eq!(at, 9000);
    assert_eq!(samples.unwrap(), [("going".to_owned(), 9.0)]);
}

#[test]
fn an_old_newest_sample_is_stale_by_its_own_interval() {
    let check = |points: &[(i64, f64)], now_ms, stale: bool| {
        let (_, samples) = read(&[(0, series("m", &[], points))], now_ms);
        match samples {
            Ok(_) => assert!(!stale, "{points:?} at {now_ms}"),
            Err(missing) => assert!(stale && missing.why == Why::Stale, "{missing}"),
        }
    };
    let each_second = [(1000, 1.0), (2000, 1.0)];
    check(&each_second, 7000, false);
    check(&each_second, 7001, true);
    let each_minute = [(60_000, 1.0), (120_000, 1.0)];
    check(&each_minute, 290_000, false);
    check(&each_minute, 300_001, true);
    // A missed scrape between two points is not the interval.
    check(&[(1000, 1.0), (2000, 1.0), (60_000, 1.0)], 66_000, true);
    check(&[(120_000, 1.0)], 290_000, false);
}

#[test]
fn overlapping_questions_give_each_series_once() {
    let one = || series("m", &[("code", "500")], &[(1000, 1.0), (2000, 2.0)]);
    let (_, samples) = read(&[(0, one()), (1, one())], 2000);
    assert_eq!(samples.unwrap(), [("m".to_owned(), 2.0)]);
}

#[test]
fn an_expression_gives_one_finite_number() {
    let vector = |values: &[&str]| {
        let result: Vec<_> = values
            .iter()
            .map(|value| serde_json::json!({ "metric": {}, "value": [1, value] }))
            .collect();
        serde_json::from_value(serde_json::json!({ "resultType": "vector", "result": result }))
            .unwrap()
    };
    let check = |data: Data, expected: Result<f64, Why>| {
        assert_eq!(level("q", &Ok(data)).map_err(|missing| missing.why), expected);
    };
    check(vector(&["1.5"]), Ok(1.5));
    check(Data::Scalar(Point { at_ms: 0, value: 2.0 }), Ok(2.0));
    check(vector(&[]), Err(Why::AbsentSeries));
    check(vector(&["1", "2"]), Err(Why::BadValue));
    check(vector(&["NaN"]), Err(Why::BadValue));
    check(vector(&["-Inf"]), Err(Why::BadValue));
    check(Data::Matrix(Vec::new()), Err(Why::BadValue));
}

#[test]
fn only_addresses_are_probed() {
    let check = |instance: &str, is_address: bool| {
        assert_eq!(address(instance).is_ok(), is_address, "{instance}");
    };
    check("h:1", true);
    check("10.0.0.1:8080", true);
    check("[::1]:9100", true);
    check("h", false);
    check("https://h:1", false);
    check("user@h:1", false);
    check("h:http", false);
    check("{version=\"v2\"}", false);
    check(":80", false);
}

#[test]
fn a_series_with_one_point_ends_with_the_scrape_rhythm_of_its_instance() {
    let blip = series("blip", &[], &[(2000, 1.0)]);
    let going = series("going", &[], &[(8000, 8.0), (9000, 9.0)]);
    let (at, samples) = read(&[(0, blip), (1, going)], 9500);
    assert_eq!((at, samples.unwrap().len()), (9000, 1));
}

/// Readings of an arm whose questions were answered so.
fn read_all(specs: &[SignalSpec], answers: Vec<Result<Data, Missing>>) -> Vec<InstanceReading> {
    let client = crate::source::client::Client::new().unwrap();
    let options = crate::source::prometheus::PrometheusOptions {
        url: "http://p".to_owned(),
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
        limits: crate::source::prometheus::PrometheusLimits::default(),
    };
    let server = Arc::new(PrometheusServer::new(client, options).unwrap());
    let arm = SelectorArm { server, matchers: "version=\"v2\"".to_owned() };
    let mut book = Book::default();
    let plan = plan(&arm, specs, arm.server.range(), &mut book);
    assert_eq!(book.questions.len(), answers.len(), "{:?}", book.questions);
    book.answers = answers;
    let look = Look { now: Time(2000), timeout: Duration::from_secs(1), specs };
    readings(&arm, &plan, &[], &book, look)
}

fn counter(name: &str) -> SignalSpec {
    let of = selection(vec![selector(name, vec![])]);
    SignalSpec { name: name.to_owned(), reads: Reads::Counter(of) }
}

#[test]
fn one_failed_question_is_never_an_absent_series() {
    let answered = series("a", &[("instance", "i:1")], &[(1000, 1.0), (2000, 2.0)]);
    let failed = Missing::new(Why::QueryFailed, "too slow");
    let answers =
        vec![Ok(Data::Matrix(vec![answered])), Err(failed.clone()), Ok(Data::Matrix(vec![]))];
    let readings = read_all(&[counter("a"), counter("b")], answers);
    assert_eq!(readings.len(), 1);
    assert_eq!((&*readings[0].instance, &readings[0].samples), ("i:1", &Err(failed)));
}

#[test]
fn the_limit_of_instances_is_named() {
    let of = |i| series("a", &[("instance", &format!("i:{i}"))], &[(1000, 1.0), (2000, 2.0)]);
    let all = (0..INSTANCES_PER_ARM_MAX + 3).map(of).collect();
    let readings = read_all(&[counter("a")], vec![Ok(Data::Matrix(all)), Ok(Data::Matrix(vec![]))]);
    let beyond = |reading: &InstanceReading| match &reading.samples {
        Ok(_) => false,
        Err(missing) => missing.detail.contains("limit of 512 instances"),
    };
    assert_eq!(readings.len(), INSTANCES_PER_ARM_MAX + 3);
    assert_eq!(readings.iter().filter(|reading| beyond(reading)).count(), 3);
}

#[test]
fn series_without_an_instance_are_one_instance_named_by_the_arm() {
    let summed = series("a", &[("version", "v2")], &[(1000, 1.0), (2000, 2.0)]);
    let answers = vec![Ok(Data::Matrix(vec![summed])), Ok(Data::Matrix(vec![]))];
    let readings = read_all(&[counter("a")], answers);
    assert_eq!(&*readings[0].instance, "{version=\"v2\"}");
    assert_eq!(readings[0].samples.as_ref().unwrap()[0].value, 2.0);
    let nothing =
        read_all(&[counter("a")], vec![Ok(Data::Matrix(vec![])), Ok(Data::Matrix(vec![]))]);
    assert_eq!((nothing.len(), &nothing[0].samples), (1, &Ok(vec![])));
}

#[test]
fn what_the_server_says_of_its_scrapes_is_what_is_up() {
    let specs = [counter("a"), SignalSpec { name: "up".to_owned(), reads: Reads::Up }];
    let of = |name: &str, instance: &str, points: &[(i64, f64)]| {
        series(name, &[("instance", instance)], points)
    };
    let requests = || vec![of("a", "i:1", &[(1000, 1.0), (2000, 2.0)])];
    let nothing = || Ok(Data::Matrix(vec![]));
    let check = |ups: Result<Data, Missing>, expected: &[(&str, bool, Result<f64, Why>)]| {
        let readings = read_all(&specs, vec![Ok(Data::Matrix(requests())), nothing(), ups]);
        let found: Vec<_> = readings
            .iter()
            .map(|reading| {
                let level = reading.levels[0].value.clone().map_err(|missing| missing.why);
                assert_eq!(reading.levels[0].signal, 1);
                (&*reading.instance, reading.samples.is_ok(), level)
            })
            .collect();
        assert_eq!(found, expected);
    };
    let up = |instance, last| of("up", instance, &[(1000, 1.0), (2000, last)]);
    let both = Ok(Data::Matrix(vec![up("i:1", 1.0), up("k:1", 0.0)]));
    // One that never told a number is known by its `up` alone.
    check(both, &[("i:1", true, Ok(1.0)), ("k:1", false, Ok(0.0))]);
    check(Ok(Data::Matrix(vec![up("i:1", 0.0)])), &[("i:1", false, Ok(0.0))]);
    check(nothing(), &[("i:1", true, Err(Why::AbsentSeries))]);
    let failed = Missing::new(Why::QueryFailed, "too slow");
    check(Err(failed), &[("i:1", true, Err(Why::QueryFailed))]);
    // A target that is not scraped any more says nothing.
    let old = of("up", "i:1", &[(-9000, 1.0), (-8000, 0.0)]);
    check(Ok(Data::Matrix(vec![old])), &[("i:1", true, Err(Why::Stale))]);
    let none = read_all(&specs, vec![nothing(), nothing(), nothing()]);
    let missing = none[0].levels[0].value.as_ref().unwrap_err();
    assert_eq!((none.len(), missing.why), (1, Why::AbsentSeries));
    assert!(missing.detail.contains("no up{version=\"v2\"}"), "{missing}");
}
