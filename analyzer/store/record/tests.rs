//! Records are read back bit for bit, and what is none is refused with words.

use super::*;
use crate::engine::{
    native::NativeHistogram,
    observation::{Headcount, Instances, Part, PartKind},
};

fn one(reading: Reading) -> Observation {
    let pair = Pair::new(reading.clone(), reading);
    Observation {
        at: Time(1_700_000_000_123),
        signals: vec![pair],
        canary_gap: None,
        instances: None,
    }
}

fn check(reading: Reading, expected: &str) {
    let observation = one(reading);
    let record = write_observation(&observation).expect("finite");
    assert_eq!(record, expected);
    assert_eq!(read_observation(&record).expect("just written"), observation);
}

#[test]
fn an_observation_is_a_compact_record() {
    let head = r#"{"v":1,"at":1700000000123,"#;
    let twice = |reading: &str| format!(r#"{head}"s":[[{reading},{reading}]]}}"#);
    check(
        Ok(Value::Share { events: 3.0, total: 0.1 + 0.2 }),
        &twice(r#"{"s":[3,"0.30000000000000004"]}"#),
    );
    check(
        Ok(Value::Events { events: 1e300, instance_secs: -0.0, instances: 7 }),
        &twice(r#"{"e":["1e300","-0.0",7]}"#),
    );
    check(Ok(Value::Level(-2.0)), &twice(r#"{"l":-2}"#));
    let native = NativeHistogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 4.0,
        buckets: vec![(-20, 7.0), (-19, 1.0), (2, 0.5)],
    };
    check(Ok(Value::Native(native)), &twice(r#"{"n":[3,"0.001",4,[-20,1,21],[7,1,"0.5"]]}"#));
    check(Ok(Value::Restarts(2)), &twice(r#"{"r":2}"#));
    check(
        Ok(Value::Health { status: Health::Degraded, latency_secs: None }),
        &twice(r#"{"p":["degraded",null]}"#),
    );
    check(
        Ok(Value::Histogram(Histogram { edges: [0.5, 1.0].into(), counts: vec![1.0, 2.0, 0.0] })),
        &format!(r#"{head}"e":[["0.5",1]],"s":[[{{"h":[0,[1,2,0]]}},{{"h":[0,[1,2,0]]}}]]}}"#),
    );
    for why in Why::ALL {
        let observation = one(Err(Missing::new(why, "a \"quoted\" ä\n")));
        let record = write_observation(&observation).expect("nothing to refuse");
        assert_eq!(read_observation(&record).expect("just written"), observation);
    }
}

#[test]
fn parts_are_named_once() {
    let part = |kind, name: &str, started, value| Part { kind, name: name.into(), started, value };
    let (a, b) = ("10.0.0.1:8080", "10.0.0.2:8080");
    let began = Some(Time(1_700_000_000_000));
    let share = |events, total| Value::Share { events, total };
    let mut observation = one(Ok(share(3.0, 9.0)));
    observation.signals[0].parts.canary = vec![
        part(PartKind::Instance, a, began, share(1.0, 4.0)),
        part(PartKind::Instance, b, None, share(2.0, 5.0)),
        part(PartKind::Route, "GET /", None, share(3.0, 9.0)),
    ];
    let mut memory = Pair::new(Ok(Value::Level(2.0)), Ok(Value::Level(3.0)));
    memory.parts.canary = vec![part(PartKind::Instance, a, began, Value::Level(2.0))];
    memory.parts.baseline = vec![part(PartKind::Instance, b, None, Value::Level(3.0))];
    observation.signals.push(memory);
    let record = write_observation(&observation).expect("finite");
    let expected = concat!(
        r#"{"v":1,"at":1700000000123,"s":[[{"s":[3,9]},{"s":[3,9]}],[{"l":2},{"l":3}]],"#,
        r#""n":[["i","10.0.0.1:8080",1700000000000],["i","10.0.0.2:8080"],["r","GET /"]],"#,
        r#""p":[[0,[[0,{"s":[1,4]}],[1,{"s":[2,5]}],[2,{"s":[3,9]}]],[]],"#,
        r#"[1,[[0,{"l":2}]],[[1,{"l":3}]]]]}"#
    );
    assert_eq!(record, expected);
    assert_eq!(read_observation(&record).expect("just written"), observation);
    observation.signals[1].parts.baseline[0].value = Value::Level(f64::NAN);
    let why = write_observation(&observation).expect_err("not finite");
    assert_eq!(why, format!("found NaN in instance {b} of signal 1 of the baseline"));
}

#[test]
fn what_is_not_finite_is_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let observation = one(Ok(Value::Level(bad)));
        let why = write_observation(&observation).expect_err("not finite");
        assert_eq!(why, format!("found {bad} in signal 0 of the canary"));
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let check = |record: &str, expected: &str| {
        let why = read_observation(record).expect_err("unreadable");
        assert!(why.starts_with(expected), "{record}: {why}");
    };
    check(r#"{"v":2,"later":true}"#, "the record has version 2, this program reads version 1");
    check("", "no version in the record");
    check(r#"{"at":1}"#, "no version in the record");
    check(r#"{"v":1,"at":1}"#, "missing field `s`");
    check(r#"{"v":1,"at":1,"s":[[{"l":1.5},{"l":1}]]}"#, "invalid type: floating point");
    check(r#"{"v":1,"at":1,"s":[[{"l":"inf"},{"l":1}]]}"#, "invalid value: string \"inf\"");
    check(r#"{"v":1,"at":1,"s":[[{"h":[0,[1]]},{"l":1}]]}"#, "bucket layout 0");
    check(r#"{"v":1,"at":1,"e":[[1]],"s":[[{"h":[0,[1]]},{"l":1}]]}"#, "a histogram has 1");
    let native = |native: &str| format!(r#"{{"v":1,"at":1,"s":[[{{"n":{native}}},{{"l":1}}]]}}"#);
    check(&native("[9,0,0,[],[]]"), "a native histogram of schema 9");
    check(&native("[3,0,0,[1,1],[1]]"), "a native histogram of schema 3 with 2 buckets");
    check(&native("[3,0,0,[1,0],[1,1]]"), "buckets of a native histogram are not in order");
    check(&native("[3,0,0,[2147483647,1],[1,1]]"), "buckets of a native histogram are not");
    let labels = r#"{"v":1,"w":["a"],"i":[{"a":"c","n":0,"f":0,"c":[[0,[0],1]]}]}"#;
    assert_eq!(read_carry(labels).expect_err("odd"), "a label has no value");
    let whose = r#"{"v":1,"at":1,"s":[[{"l":1},{"l":1}]],"p":[[0,[[0,{"l":1}]],[]]]}"#;
    assert_eq!(read_observation(whose).expect_err("odd"), "name 0 of a part is not in the list");
    let of = r#"{"v":1,"at":1,"s":[],"n":[["i","a"]],"p":[[0,[[0,{"l":1}]],[]]]}"#;
    let why = read_observation(of).expect_err("no such signal");
    assert_eq!(why, "parts of signal 0, which is not in the record");
    let none = r#"{"v":1,"at":1,"s":[[{"l":1},{"l":1}]],"n":[["i","a"]],"p":[[0,[[0,{"m":["stale",""]}]],[]]]}"#;
    assert_eq!(read_observation(none).expect_err("odd"), "a part has no value");
    let word = r#"{"v":1,"w":[],"i":[{"a":"c","n":4,"f":0,"c":[]}]}"#;
    assert_eq!(read_carry(word).expect_err("no word"), "word 4 is not in the list");
}

#[test]
fn a_carry_comes_back_with_strange_counters() {
    let labels = Labels::new(vec![("le".into(), "0.5".into()), ("path".into(), "/ä".into())]);
    let counters = BTreeMap::from([
        (("m_bucket".into(), labels), 0.1),
        (("m_count".into(), Labels::default()), f64::INFINITY),
        (("n (native)".into(), Labels::default()), 3.0),
    ]);
    let native = NativeHistogram {
        schema: -4,
        zero_threshold: 0.0,
        zero_count: 0.25,
        buckets: vec![(0, f64::INFINITY)],
    };
    let natives = [(("n (native)".into(), Labels::default()), Arc::new(native))].into();
    let carry = InstanceCarry {
        first_seen: Time(-5),
        last_read: Some(Time(9)),
        process_start_secs: Some(1.7e9 + 0.25),
        life_began: Some(Time(1_700_000_000_250)),
        been_up: vec![0, 3],
        counters,
        natives,
    };
    let empty = InstanceCarry {
        first_seen: Time(0),
        last_read: None,
        process_start_secs: None,
        life_began: None,
        been_up: vec![],
        counters: BTreeMap::new(),
        natives: BTreeMap::new(),
    };
    let instances = BTreeMap::from([
        ((Arm::Canary, "10.0.0.7:8080".into()), carry),
        ((Arm::Baseline, "le".into()), empty),
    ]);
    let carry = Carry { instances, seen: Seen { canary: 3, baseline: 0 } };
    let record = write_carry(&carry).expect("any carry can be written");
    assert_eq!(read_carry(&record).expect("just written"), carry);
}

#[test]
fn a_record_from_before_instances_were_counted_is_read() {
    let old = r#"{"v":1,"at":5,"s":[[{"l":1},{"l":2}]]}"#;
    let observation = read_observation(old).expect("an observation");
    assert_eq!((observation.at, observation.instances), (Time(5), None));
    let counted = Instances {
        canary: Headcount { answered: 3, found: 4, seen: 6 },
        baseline: Headcount { answered: 2, found: 2, seen: 2 },
    };
    let new = Observation { instances: Some(counted), ..observation };
    let record = write_observation(&new).expect("a record");
    assert!(record.ends_with(r#","i":[[3,4,6],[2,2,2]]}"#), "{record}");
    assert_eq!(read_observation(&record).expect("an observation"), new);

    let old = r#"{"v":1,"w":["a:1","b:1"],"i":[{"a":"c","n":0,"f":1,"c":[]},{"a":"c","n":1,"f":1,"c":[]}]}"#;
    let carry = read_carry(old).expect("a carry");
    assert_eq!(carry.seen, Seen { canary: 2, baseline: 0 });
    let more = Carry { seen: Seen { canary: 7, baseline: 3 }, ..carry };
    let record = write_carry(&more).expect("a record");
    assert_eq!(read_carry(&record).expect("a carry"), more);
}
