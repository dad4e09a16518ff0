//! Numbers of health answers: real ones, odd ones, and broken ones.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// A path as it is written, of plain names and places.
fn path(text: &str) -> FieldPath {
    let steps = text.split(['.', '[']).filter(|step| !step.is_empty()).map(|step| {
        match step.strip_suffix(']') {
            Some(index) => FieldStep::Index(index.parse().unwrap()),
            None => FieldStep::Name(step.to_owned()),
        }
    });
    FieldPath::new(steps.collect()).unwrap()
}

fn field(status: u16, body: &[u8], path: FieldPath) -> Result<f64, Missing> {
    let said = Said { status, content_type: None, body };
    let heard = Heard { endpoint: "h:1/health", said, latency_secs: Some(0.25) };
    let number = AnswerNumber::Field(path);
    let mut levels = read(&[(3, &AnswerNumber::Latency), (7, &number)], heard);
    let level = levels.pop().unwrap();
    assert_eq!((level.signal, levels[0].signal, levels.len()), (7, 3, 1));
    level.value
}

const BODY: &str = r#"{"status": "healthy", "active_connections": 41, "uptime": "3.5", "ready": true,
    "checks": {"db": {"latency_ms": 12.5, "disk space": {"free": 1e3}}, "none": null},
    "nodes": [{"load": 0.5}, {"load": -2}], "huge": "1e999", "empty": {}}"#;

#[test]
fn numbers_are_found_at_their_paths() {
    let check = |at: &str, expected: f64| {
        assert_eq!(field(200, BODY.as_bytes(), path(at)), Ok(expected), "{at}");
        assert_eq!(field(503, BODY.as_bytes(), path(at)), Ok(expected), "a 503 tells them too");
    };
    check("active_connections", 41.0);
    check("uptime", 3.5);
    check("ready", 1.0);
    check("checks.db.latency_ms", 12.5);
    check("checks.db.disk space.free", 1000.0);
    check("nodes[1].load", -2.0);
    assert_eq!(field(200, b"[1, [2, 3]]", path("[1][0]")), Ok(2.0));
}

#[test]
fn what_is_no_number_is_named() {
    let check_body = |status, body: &str, at: &str, why: Why, words: &str| {
        let missing = field(status, body.as_bytes(), path(at)).unwrap_err();
        assert_eq!((missing.why, &*missing.detail), (why, &*format!("h:1/health: {words}")));
    };
    let check = |at: &str, why, words: &str| check_body(200, BODY, at, why, words);
    use Why::{AbsentSeries, BadValue, UnclearHealth};
    check(
        "active_conections",
        AbsentSeries,
        "no `active_conections`: the answer has `active_connections`, `checks`, `nodes`, \
         `status`, `uptime`, `empty` and 2 more",
    );
    check("checks.dbs.x", AbsentSeries, "no `checks.dbs.x`: `checks` has `db`, `none`");
    check("nodes[2].load", AbsentSeries, "no `nodes[2].load`: `nodes` is a list of 2");
    check("nodes.load", AbsentSeries, "no `nodes.load`: `nodes` is a list of 2");
    check("checks[0]", AbsentSeries, "no `checks[0]`: `checks` is an object of 2");
    check("empty.x", AbsentSeries, "no `empty.x`: `empty` is empty");
    check("status.x", AbsentSeries, "no `status.x`: `status` is the text \"healthy\"");
    check("status", BadValue, "`status` is the text \"healthy\", expected a number");
    check("checks.none", BadValue, "`checks.none` is null, expected a number");
    check("checks", BadValue, "`checks` is an object of 2, expected a number");
    check("nodes", BadValue, "`nodes` is a list of 2, expected a number");
    check("huge", BadValue, "`huge` is the text \"1e999\", expected a number");
    check_body(200, "", "x", BadValue, "the answer is empty, expected JSON");
    check_body(200, "5", "x", AbsentSeries, "no `x`: the answer is the number 5");
    let words = "the answer is no JSON (expected ident at line 1 column 2)";
    check_body(200, "not json", "x", BadValue, words);
    let words =
        "found status 401: an auth wall answered; hint: let this host ask without credentials";
    check_body(401, BODY, "active_connections", UnclearHealth, words);
    let deep = "[".repeat(100_000);
    let words = "the answer is no JSON (recursion limit exceeded at line 1 column 128)";
    check_body(200, &deep, "x", BadValue, words);
}

/// The answers of services in use give the numbers that they hold, as found by an independent walk.
#[test]
fn real_answers_give_each_of_their_numbers() {
    let answers = [
        include_str!("../../tests/cases/health/health_json.json"),
        include_str!("../../tests/cases/health/spring.json"),
    ];
    let mut found = 0;
    for answer in answers {
        let body: Value = serde_json::from_str(answer).unwrap();
        let mut numbers = Vec::new();
        walk(&body, &mut Vec::new(), &mut numbers);
        found += numbers.len();
        for (steps, expected) in numbers {
            let path = FieldPath::new(steps).unwrap();
            assert_eq!(field(200, answer.as_bytes(), path.clone()), Ok(expected), "{path}");
        }
    }
    assert_eq!(found, 4);
}

fn walk(value: &Value, steps: &mut Vec<FieldStep>, found: &mut Vec<(Vec<FieldStep>, f64)>) {
    match value {
        Value::Number(number) => found.push((steps.clone(), number.as_f64().unwrap())),
        Value::Object(object) => {
            for (name, value) in object {
                steps.push(FieldStep::Name(name.clone()));
                walk(value, steps, found);
                steps.pop();
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                steps.push(FieldStep::Index(index));
                walk(value, steps, found);
                steps.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn latency_is_that_of_the_answer() {
    let said = Said { status: 200, content_type: None, body: b"" };
    let latency = |said, latency_secs| {
        let heard = Heard { endpoint: "h:1/health", said, latency_secs };
        read(&[(0, &AnswerNumber::Latency)], heard).pop().unwrap().value.map_err(|m| m.why)
    };
    assert_eq!(latency(said, Some(0.25)), Ok(0.25));
    assert_eq!(latency(said, None), Err(Why::NotObserved));
    assert_eq!(latency(Said { status: 302, ..said }, Some(0.25)), Err(Why::UnclearHealth));
}

#[test]
fn broken_answers_never_panic_and_give_finite_numbers() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    const MARKS: &[u8] = b"{}[]\":,0e9- ";
    let paths = ["active_connections", "checks.db.latency_ms", "nodes[1].load", "uptime", "[0]"];
    for round in 0..20_000 {
        let mut body = BODY.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..body.len());
            match rng.random_range(0..3) {
                0 => body[at] = rng.random(),
                1 => body.insert(at, MARKS[rng.random_range(0..MARKS.len())]),
                _ => drop(body.remove(at)),
            }
        }
        match field(200, &body, path(paths[round % paths.len()])) {
            Ok(number) => assert!(number.is_finite()),
            Err(missing) => {
                assert!(missing.detail.len() < 1000 && !missing.detail.contains('\n'), "{missing}");
            }
        }
    }
}
