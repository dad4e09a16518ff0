//! The reader against two others: a slow one written here from the grammar, on bodies mutated by
//! seed, and prometheus-parse, on the plain bodies that both read.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use rollgate::source::exposition::{Format, Limits, Refusal, Wanted, read};

/// A sample in a form that compares: name, labels, value.
type Plain = (String, BTreeMap<String, String>, String);

/// A line and a place in it, letter by letter.
struct Slow {
    chars: Vec<char>,
    at: usize,
}

impl Slow {
    fn next(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.next().is_some_and(|c| c == ' ' || c == '\t') {
            self.at += 1;
        }
    }

    fn word(&mut self, colon: bool) -> Option<String> {
        let mut word = String::new();
        while let Some(c) = self.next().filter(|c| {
            c.is_ascii_alphabetic()
                || *c == '_'
                || (*c == ':' && colon)
                || (c.is_ascii_digit() && !word.is_empty())
        }) {
            word.push(c);
            self.at += 1;
        }
        (!word.is_empty()).then_some(word)
    }

    fn one(&mut self, wanted: char) -> Option<()> {
        (self.next()? == wanted).then(|| self.at += 1)
    }

    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        self.one('"')?;
        loop {
            match self.next()? {
                '"' => break,
                '\\' => {
                    self.at += 1;
                    text.push(match self.next()? {
                        'n' => '\n',
                        '"' => '"',
                        '\\' => '\\',
                        _ => return None,
                    });
                }
                c => text.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        Some(text)
    }

    /// What stands in braces, from the first brace to past the last.
    fn braces(&mut self, name: &mut Option<String>) -> Option<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        self.one('{')?;
        self.blanks();
        while self.next() != Some('}') {
            let in_quotes = self.next() == Some('"');
            let label = if in_quotes { self.quoted()? } else { self.word(false)? };
            if label.is_empty() {
                return None;
            }
            self.blanks();
            if in_quotes && self.next() != Some('=') {
                if name.replace(label).is_some() {
                    return None;
                }
            } else {
                self.one('=')?;
                self.blanks();
                if labels.insert(label, self.quoted()?).is_some() {
                    return None;
                }
                self.blanks();
            }
            if self.next()? != '}' {
                self.one(',')?;
            }
            self.blanks();
        }
        self.at += 1;
        Some(labels)
    }
}

/// The grammar of a text sample, followed with no thought of speed: `None` if it is refused.
fn slow_sample(line: &str) -> Option<Plain> {
    let mut slow = Slow { chars: line.chars().collect(), at: 0 };
    slow.blanks();
    let mut name = slow.word(true);
    let after_name = slow.at;
    slow.blanks();
    let mut apart = slow.at > after_name;
    let mut labels = BTreeMap::new();
    if slow.next() == Some('{') {
        apart = true;
        labels = slow.braces(&mut name)?;
    }
    let rest: String = slow.chars[slow.at..].iter().collect();
    let words: Vec<&str> = rest.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let value = *words.first().filter(|_| apart)?;
    let stamp_fits = words.get(1).is_none_or(|stamp| stamp.parse::<i64>().is_ok());
    if words.len() > 2 || !stamp_fits {
        return None;
    }
    Some((name?, labels, slow_value(value)?.to_string()))
}

fn slow_value(text: &str) -> Option<f64> {
    let grammar = regex::Regex::new(
        r"^(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:[+-]?inf(?:inity)?|nan))$",
    );
    if !grammar.expect("a regex").is_match(text) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    let wordy = text.to_ascii_lowercase().contains('n');
    (wordy || number.is_finite()).then_some(number)
}

/// Samples and numbers of refused lines, for names that stand at the beginning of a line.
fn slow_body(body: &[u8], wanted: Option<&[&str]>) -> (Vec<Plain>, usize) {
    let (mut samples, mut refused) = (Vec::new(), 0);
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let lossy = String::from_utf8_lossy(line);
        let text = lossy.trim_start_matches([' ', '\t']);
        if line.trim_ascii_start().is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(names) = wanted {
            let bare = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
            let first = bare.into_iter().next().unwrap_or_default();
            let in_braces = text.starts_with('{')
                && names.iter().any(|name| text.contains(&format!("\"{name}\"")));
            if !names.contains(&first) && !in_braces {
                continue;
            }
        }
        match std::str::from_utf8(line).ok().and_then(slow_sample) {
            Some(sample) if wanted.is_none_or(|names| names.contains(&sample.0.as_str())) => {
                samples.push(sample);
            }
            Some(_) => {}
            None => refused += 1,
        }
    }
    (samples, refused)
}

fn fast_body(body: &[u8], wanted: &Wanted) -> Result<(Vec<Plain>, usize), Refusal> {
    let read = read(body, Format::Text, wanted, |_| true, &Limits::default())?;
    let plain = |sample: &rollgate::signal::sample::Sample| {
        let labels = sample.labels.iter().map(|(name, value)| (name.into(), value.into()));
        (sample.name.to_string(), labels.collect(), sample.value.to_string())
    };
    let refused = read.refused.map_or(0, |refused| refused.lines as usize);
    Ok((read.samples.iter().map(plain).collect(), refused))
}

const NAMES: [&str; 5] = [
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "process_start_time_seconds",
    "http_requests_in_flight",
    "up",
];

/// A body of plain lines: nothing in it is open to interpretation.
fn plain_body(random: &mut StdRng, lines: usize) -> String {
    let mut body = String::new();
    for _ in 0..lines {
        let name = NAMES.choose(random).expect("a name");
        if random.random_ratio(1, 6) {
            body.push_str(&format!("# HELP {name} Some words.\n"));
        }
        let value = match random.random_range(0..6) {
            0 => "NaN".to_owned(),
            1 => "+Inf".to_owned(),
            2 => "-Inf".to_owned(),
            3 => format!("{:e}", random.random::<f64>() * 1e9),
            4 => format!("{}", random.random::<f64>()),
            _ => random.random_range(0..1_000_000_000u64).to_string(),
        };
        let labels: Vec<String> = (0..random.random_range(0..5))
            .map(|index| format!("l{index}=\"v{}/x y\"", random.random_range(0..9)))
            .collect();
        let braces =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let stamp = if random.random_ratio(1, 5) { " 1700000000000" } else { "" };
        body.push_str(&format!("{name}{braces} {value}{stamp}\n"));
    }
    body
}

#[test]
fn both_readers_agree_on_plain_bodies() {
    const SEED: u64 = 31;
    let mut random = StdRng::seed_from_u64(SEED);
    for round in 0..300 {
        let body = plain_body(&mut random, 40);
        let lines = body.lines().map(|line| Ok(line.to_owned()));
        let theirs = prometheus_parse::Scrape::parse(lines).expect("parses");
        let theirs: Vec<Plain> = theirs
            .samples
            .into_iter()
            .map(|sample| {
                let labels = sample.labels.iter();
                let labels = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
                let prometheus_parse::Value::Untyped(value) = sample.value else {
                    panic!("untyped bodies only: {:?}", sample.value)
                };
                (sample.metric, labels, value.to_string())
            })
            .collect();
        let ours = fast_body(body.as_bytes(), &Wanted::all());
        assert_eq!(ours, Ok((theirs, 0)), "seed {SEED}, round {round}");
    }
}

#[test]
fn the_fast_reader_equals_the_slow_one_on_mutated_bodies() {
    const SEED: u64 = 77;
    let mut random = StdRng::seed_from_u64(SEED);
    let pieces: [&[u8]; 22] = [
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"{",
        b"}",
        b"\"",
        b",",
        b"=",
        b"\\",
        b"\\n",
        b"\\\"",
        b"#",
        b"1",
        b"NaN",
        b"\xff",
        b"\xc3\xa9",
        b"{\"http_requests_total\"",
        b"\nhttp_requests_total",
        b"_",
        b".",
        b"\0",
    ];
    let sets: [Option<&[&str]>; 4] =
        [None, Some(&NAMES[..1]), Some(&NAMES[..3]), Some(&NAMES[3..])];
    let (mut compared, mut refused_lines) = (0, 0);
    for round in 0..1500 {
        let lines = random.random_range(1..60);
        // A good head, so that the body as a whole is not what is judged.
        let mut body = format!("up 1\n{}", plain_body(&mut random, lines)).into_bytes();
        for _ in 0..random.random_range(0..20) {
            let at = random.random_range(5..=body.len());
            match random.random_range(0..3) {
                0 => {
                    let piece = pieces.choose(&mut random).expect("a piece");
                    body.splice(at..at, piece.iter().copied());
                }
                1 => body.truncate(at.max(body.len().saturating_sub(30))),
                _ => {
                    let end = (at + random.random_range(0..4)).min(body.len());
                    body.drain(at..end);
                }
            }
        }
        for names in sets {
            let wanted = names.map_or_else(Wanted::all, Wanted::names);
            let slow = slow_body(&body, names);
            refused_lines += slow.1;
            compared += slow.0.len();
            let fast = fast_body(&body, &wanted);
            let shown = String::from_utf8_lossy(&body);
            assert_eq!(fast, Ok(slow), "seed {SEED}, round {round}, {names:?} in\n{shown}");
        }
    }
    assert!(compared > 20_000 && refused_lines > 2_000, "{compared} and {refused_lines}");
}
