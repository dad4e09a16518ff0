//! Answers of the Prometheus HTTP API, as Prometheus, Thanos, Mimir and VictoriaMetrics give them.
//!
//! Invariants: values are read from strings (`"NaN"`, `"+Inf"`); of a range only the newest points
//! are held; an answer that says it is partial is a failure.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::OnceLock};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor},
};

use super::{
    excerpt::{excerpt, excerpt_bytes},
    prometheus_native::HistogramPoint,
};
use crate::signal::sample::{Labels, Sample};

/// Points of a series that are held: enough to step back to the scrape that all queries saw, and
/// to tell how often it is scraped.
pub(super) const POINTS_KEPT: usize = 4;
/// Series of one answer.
pub const SERIES_MAX: usize = 50_000;
/// Warnings that are passed on.
const WARNINGS_MAX: usize = 4;

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answered {
    pub data: Data,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub(super) enum Data {
    Matrix(Vec<Series>),
    Vector(Vec<Series>),
    Scalar(Point),
    String(IgnoredAny),
}

impl Data {
    pub(super) fn series(&self) -> &[Series] {
        match self {
            Data::Matrix(series) | Data::Vector(series) => series,
            Data::Scalar(_) | Data::String(_) => &[],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Series {
    pub metric: BTreeMap<String, String>,
    #[serde(default)]
    pub values: Newest<Point>,
    pub value: Option<Point>,
    #[serde(default)]
    pub histograms: Newest<HistogramPoint>,
    /// What its samples have in common; made once, since a stretch of the past has thousands.
    #[serde(skip)]
    blank: OnceLock<Sample>,
}

impl Series {
    /// A series of plain numbers that has no points yet.
    pub(super) fn of(metric: BTreeMap<String, String>) -> Self {
        let (values, value, histograms) = (Newest::default(), None, Newest::default());
        Self { metric, values, value, histograms, blank: OnceLock::new() }
    }

    /// A sample of it without a value: name and labels, a bucket's bound written plainly.
    pub(super) fn blank(&self) -> &Sample {
        self.blank.get_or_init(|| {
            let name = self.metric.get("__name__").map_or("", String::as_str);
            let labels = self.metric.iter().filter(|(label, _)| *label != "__name__");
            let mut pairs: Vec<(&str, &str)> =
                labels.map(|(label, value)| (label.as_str(), value.as_str())).collect();
            let mut blank = Sample::number(name.into(), Labels::of(&mut pairs), 0.0);
            blank.write_bound_plainly();
            blank
        })
    }

    /// When its newest points were taken, oldest first.
    pub(super) fn times(&self) -> Vec<i64> {
        let numbers = self.values.0.iter().map(|point| point.at_ms);
        let histograms = self.histograms.0.iter().map(|point| point.at_ms);
        let mut times: Vec<i64> = numbers.chain(histograms).collect();
        times.sort_unstable();
        times
    }
}

/// A value at a time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub at_ms: i64,
    pub value: f64,
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (secs, value) = <(f64, String)>::deserialize(deserializer)?;
        let value = value
            .parse()
            .map_err(|_| D::Error::custom(format!("value {:?} is no number", excerpt(&value))))?;
        Ok(Self { at_ms: (secs * 1000.0).round() as i64, value })
    }
}

/// The newest points of a range, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Newest<P>(pub Vec<P>);

impl<P> Default for Newest<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Newest<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tail<P>(PhantomData<P>);
        impl<'de, P: Deserialize<'de>> Visitor<'de> for Tail<P> {
            type Value = Newest<P>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of points, each with its time")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Newest<P>, A::Error> {
                let mut points = Vec::with_capacity(POINTS_KEPT);
                while let Some(point) = seq.next_element()? {
                    if points.len() == POINTS_KEPT {
                        points.remove(0);
                    }
                    points.push(point);
                }
                Ok(Newest(points))
            }
        }
        deserializer.deserialize_seq(Tail(PhantomData))
    }
}

/// A series with all its points, oldest first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct LongSeries {
    pub metric: BTreeMap<String, String>,
    #[serde(default)]
    pub values: Vec<Point>,
    #[serde(default)]
    pub histograms: Vec<HistogramPoint>,
}

#[derive(Deserialize)]
struct LongData {
    result: Vec<LongSeries>,
}

#[derive(Deserialize)]
#[serde(bound = "D: Deserialize<'de>")]
struct Envelope<D> {
    status: String,
    #[serde(default = "no_data")]
    data: Option<D>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

fn no_data<D>() -> Option<D> {
    None
}

/// Only the error of an answer, when its data is not worth reading.
#[derive(Deserialize)]
struct Complaint {
    #[serde(default, rename = "errorType")]
    error_type: String,
    error: String,
}

/// Reads an answer.
///
/// # Errors
/// In words, when it is no answer, an error, or only a part of one.
pub(super) fn read_answer(status: u16, body: &[u8]) -> Result<Answered, String> {
    let (data, warnings) = read_data::<Data>(status, body)?;
    few_enough(data.series().len())?;
    Ok(Answered { data, warnings })
}

/// Reads the answer to a range selector with every point in it.
///
/// # Errors
/// In words, when it is no answer, an error, or only a part of one.
pub(super) fn read_long_answer(
    status: u16,
    body: &[u8],
) -> Result<(Vec<LongSeries>, Vec<String>), String> {
    let (data, warnings) = read_data::<LongData>(status, body)?;
    few_enough(data.result.len())?;
    Ok((data.result, warnings))
}

fn few_enough(series: usize) -> Result<(), String> {
    if series > SERIES_MAX {
        return Err(format!(
            "found {series} series, beyond the limit of {SERIES_MAX}; hint: select fewer"
        ));
    }
    Ok(())
}

fn read_data<D: DeserializeOwned>(status: u16, body: &[u8]) -> Result<(D, Vec<String>), String> {
    if !(200..=299).contains(&status) {
        return Err(refusal_words(status, body));
    }
    let envelope: Envelope<D> = serde_json::from_slice(body).map_err(|error| {
        format!(
            "found status {status} with {:?} ({}), expected an answer of the Prometheus API; hint: \
             is this the server's base URL?",
            excerpt_bytes(body),
            excerpt(&error.to_string())
        )
    })?;
    if envelope.status != "success" {
        return Err(format!("{}: {}", excerpt(&envelope.error_type), excerpt(&envelope.error)));
    }
    if envelope.is_partial {
        return Err("the server gave only a part of the data (isPartial)".to_owned());
    }
    let data = envelope.data.ok_or("found a success without data")?;
    let warnings = envelope.warnings.iter().take(WARNINGS_MAX).map(|text| excerpt(text)).collect();
    Ok((data, warnings))
}

fn refusal_words(status: u16, body: &[u8]) -> String {
    let said = match serde_json::from_slice::<Complaint>(body) {
        Ok(said) => format!("{}: {}", excerpt(&said.error_type), excerpt(&said.error)),
        Err(_) => format!("{:?}", excerpt_bytes(body)),
    };
    match status {
        401 | 403 | 407 => format!(
            "found status {status} ({said}); hint: does the server want an authorization header?"
        ),
        300..=399 => format!(
            "found status {status} (a redirect), expected 200; hint: redirects are not followed, \
             give the final URL"
        ),
        404 => format!("found status 404 ({said}); hint: is this the server's base URL?"),
        status => format!("found status {status} ({said})"),
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn answered(data: &str) -> Answered {
        let body = format!("{{\"status\":\"success\",\"data\":{data}}}");
        read_answer(200, body.as_bytes()).unwrap()
    }

    #[test]
    fn reads_values_from_strings() {
        let data = answered("{\"resultType\":\"scalar\",\"result\":[1.5,\"+Inf\"]}").data;
        assert_eq!(data, Data::Scalar(Point { at_ms: 1500, value: f64::INFINITY }));
        // The keys may come in the other order.
        let data = answered(
            r#"{"result":[{"metric":{"a":"b"},"value":[2,"NaN"]}],"resultType":"vector"}"#,
        )
        .data;
        assert!(data.series()[0].value.unwrap().value.is_nan());
        let data = answered("{\"resultType\":\"vector\",\"result\":[]}").data;
        assert_eq!(data.series(), []);
    }

    #[test]
    fn holds_only_the_newest_points() {
        let points: Vec<_> = (0..100).map(|i| format!("[{i},\"{i}\"]")).collect();
        let data = answered(&format!(
            "{{\"resultType\":\"matrix\",\"result\":[{{\"metric\":{{}},\"values\":[{}]}}]}}",
            points.join(",")
        ))
        .data;
        let kept: Vec<_> = data.series()[0].values.0.iter().map(|point| point.value).collect();
        assert_eq!(kept, [96.0, 97.0, 98.0, 99.0]);
    }

    #[test]
    fn a_long_answer_has_every_point() {
        let points: Vec<_> = (0..100).map(|i| format!("[{i}.5,\"{i}\"]")).collect();
        let body = format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[\
             {{\"metric\":{{\"a\":\"b\"}},\"values\":[{}]}},{{\"metric\":{{}},\"histograms\":[]}}\
             ]}}}}",
            points.join(",")
        );
        let (series, _) = read_long_answer(200, body.as_bytes()).unwrap();
        assert_eq!(series[0].metric["a"], "b");
        assert_eq!(series[0].values.len(), 100);
        assert_eq!(series[0].values[99], Point { at_ms: 99_500, value: 99.0 });
        assert_eq!(series[1].values, []);
        assert!(read_long_answer(503, b"down").unwrap_err().contains("503"));
    }

    #[test]
    fn native_histograms_have_points_too() {
        let points: Vec<_> = (0..9).map(|i| format!("[{i},{{\"count\":\"3\"}}]")).collect();
        let points = points.join(",");
        let data = answered(&format!(
            r#"{{"resultType":"matrix","result":[{{"metric":{{}},"histograms":[{points}]}}]}}"#
        ));
        assert_eq!(data.data.series()[0].times(), [5000, 6000, 7000, 8000]);
        // An expression may give one where a number is expected.
        let body = r#"{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}"#;
        assert_eq!(answered(body).data.series()[0].value, None);
    }

    #[test]
    fn names_every_refusal() {
        let check = |status, body: &str, part: &str| {
            let words = read_answer(status, body.as_bytes()).unwrap_err();
            assert!(words.contains(part), "{words}");
        };
        let error = "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}";
        check(400, error, "status 400 (bad_data: parse error)");
        check(422, error, "status 422");
        check(200, error, "bad_data: parse error");
        check(401, "no", "authorization");
        check(404, "404 page not found\n", "base URL");
        check(302, "", "redirect");
        check(503, "<html>down</html>", "<html>down</html>");
        check(200, "<html>login</html>", "expected an answer of the Prometheus API");
        check(200, "{\"status\":\"success\"}", "without data");
        check(200, "{\"status\":\"success\",\"isPartial\":true}", "only a part");
        let odd =
            "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"x\"]}}";
        check(200, odd, "no number");
        let one = "{\"metric\":{}},".repeat(SERIES_MAX);
        let data = format!(r#"{{"resultType":"vector","result":[{one}{{"metric":{{}}}}]}}"#);
        let many = format!(r#"{{"status":"success","data":{data}}}"#);
        check(200, &many, "beyond the limit of 50000");
    }

    /// Whole answers of real servers, collected beside the repository.
    #[test]
    fn answers_of_real_servers_are_read() {
        let dir =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/prometheus_api");
        let Ok(files) = std::fs::read_dir(&dir) else {
            assert!(std::env::var_os("CI").is_none(), "{} must be there in CI", dir.display());
            eprintln!("not checked: {} is absent", dir.display());
            return;
        };
        let (mut read, mut refused) = (0, 0);
        for file in files {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let questions: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(&text).unwrap();
            for (name, question) in questions {
                if question["endpoint"] != "/api/v1/query" {
                    continue;
                }
                let status = u16::try_from(question["status"].as_u64().unwrap()).unwrap();
                let body = question["body"].as_str().unwrap();
                match read_answer(status, body.as_bytes()) {
                    Ok(_) => {
                        assert_eq!(status, 200, "{name}");
                        read += 1;
                    }
                    Err(words) => {
                        assert!(status >= 400 && words.contains("found status"), "{name}: {words}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(read >= 40 && refused >= 8, "{read} read, {refused} refused");
    }

    #[test]
    fn random_answers_never_panic() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let whole = concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"#,
            r#""values":[[1.5,"NaN"],[2e300,"1"]]}]},"warnings":["w"]}"#,
        );
        let mut read = 0;
        for _ in 0..20_000 {
            let mut body = whole.as_bytes().to_vec();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..body.len());
                body[at] = rng.random_range(b' '..b'~');
            }
            match read_answer(200, &body) {
                Ok(_) => read += 1,
                Err(words) => assert!(!words.contains('\n') && words.len() < 1000, "{words:?}"),
            }
            if let Err(words) = read_long_answer(200, &body) {
                assert!(!words.contains('\n') && words.len() < 1000, "{words:?}");
            }
        }
        assert!(read > 0, "the whole answer is among them");
    }

    #[test]
    fn warnings_are_few_and_short() {
        let warnings = vec![format!("\"{}\"", "w".repeat(1000)); 100].join(",");
        let data = r#"{"resultType":"vector","result":[]}"#;
        let body = format!(r#"{{"status":"success","data":{data},"warnings":[{warnings}]}}"#);
        let warnings = read_answer(200, body.as_bytes()).unwrap().warnings;
        assert_eq!(warnings.len(), WARNINGS_MAX);
        assert!(warnings[0].len() < 200);
    }
}
