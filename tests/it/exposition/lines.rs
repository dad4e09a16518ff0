//! One line or one small body at a time: what is read, what is refused and in which words.

use rollgate::source::exposition::{Body, Format, Limits, Refusal, Wanted, read, visit};

fn whole(body: &[u8], format: Format) -> Result<Body, Refusal> {
    read(body, format, &Wanted::all(), |_| true, &Limits::default())
}

/// A sample as `name{label=value|...} value`, with nothing escaped.
fn shown(body: &Body) -> Vec<String> {
    let show = |sample: &rollgate::signal::sample::Sample| {
        let labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}} {}", sample.name, labels.join("|"), sample.value)
    };
    body.samples.iter().map(show).collect()
}

#[track_caller]
fn check_text(line: &str, expected: &str) {
    let body = whole(line.as_bytes(), Format::Text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown(&body), [expected], "{line:?}");
    assert_eq!(body.refused, None, "{line:?}");
}

/// The line is refused in these words, and a good line after it is still read.
#[track_caller]
fn check_refused(format: Format, line: &str, expected: &str) {
    let end = match format {
        Format::Text => "",
        Format::OpenMetrics => "# EOF\n",
    };
    for wanted in [Wanted::all(), Wanted::names(["bad_metric_of_the_test", "m", "good"])] {
        let body = format!("good 1\n{line}\ngood 2\n{end}");
        let body = read(body.as_bytes(), format, &wanted, |_| true, &Limits::default());
        let body = body.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(shown(&body), ["good{} 1", "good{} 2"], "{line:?}");
        let refused = body.refused.unwrap_or_else(|| panic!("{line:?} was not refused"));
        assert_eq!((refused.lines, refused.first.as_str()), (1, expected), "{line:?}");
    }
}

#[track_caller]
fn check_body(body: &[u8], format: Format, expected: Refusal) {
    for wanted in [Wanted::all(), Wanted::names(["good_metric_of_the_test"])] {
        let found = read(body, format, &wanted, |_| true, &Limits::default());
        assert_eq!(found.as_ref(), Err(&expected));
        assert!(!expected.hint().is_empty());
    }
}

#[test]
fn text_lines_are_read_as_written() {
    check_text("m 1", "m{} 1");
    check_text("m 1\n", "m{} 1");
    check_text("m 1\r\n", "m{} 1");
    check_text("  m\t 1  \n", "m{} 1");
    check_text("m {a=\"b\"} 1\n", "m{a=b} 1");
    check_text("m{}1", "m{} 1");
    check_text("m{ a = \"b\" , } 1\n", "m{a=b} 1");
    check_text("m{b=\"2\",a=\"1\"} 1\n", "m{a=1|b=2} 1");
    check_text("job:m:rate5m 0.5\n", "job:m:rate5m{} 0.5");
    check_text("m 1 1700000000000\n", "m{} 1");
    check_text("m 1 -1\n", "m{} 1");
    check_text("m NaN\n", "m{} NaN");
    check_text("m +Inf\n", "m{} inf");
    check_text("m{a=\"\"} 1\n", "m{a=} 1");
    check_text("# HELP m twice\n# HELP m twice\n# TYPE m fancy\n\n#\nm 1", "m{} 1");
    check_text("m{a=\"{x=\\\"y\\\",\\n}\\\\\"} 1\n", "m{a={x=\"y\",\n}\\} 1");
    check_text("m{a=\"é ☃\"} 1\n", "m{a=é ☃} 1");
    check_text("m_created 1.7e9\n", "m_created{} 1700000000");
    check_text("m_gsum{le=\"-1\"} -4\n", "m_gsum{le=-1} -4");
}

#[test]
fn quoted_names_of_prometheus_3_are_read() {
    check_text("{\"my.name\"} 1\n", "my.name{} 1");
    check_text("{\"my.name\",a=\"b\"} 1\n", "my.name{a=b} 1");
    check_text("{\"my.name\",\"a.b\"=\"c\"} 1\n", "my.name{a.b=c} 1");
    check_text("m{\"a.b\"=\"c\"} 1\n", "m{a.b=c} 1");
    check_text("{a=\"b\",\"my \\\"name\\\"\"} 1\n", "my \"name\"{a=b} 1");
}

/// Each of these makes a lenient regular expression read a value, a label or nothing of its own
/// invention: a client that chooses its path or user agent would steer the verdict.
#[test]
fn label_values_forge_nothing() {
    check_text("m{a=\"} 99 \"} 1\n", "m{a=} 99 } 1");
    check_text("m{tenant=\"shop\",path=\"/q,tenant=admin\"} 1\n", {
        "m{path=/q,tenant=admin|tenant=shop} 1"
    });
    check_text("m{route=\"/users/{id}\"} 1\n", "m{route=/users/{id}} 1");
    check_text("m{a=\"x # {id=\\\"1\\\"} 5\"} 1\n", "m{a=x # {id=\"1\"} 5} 1");
    check_text("m{a=\"\\nwanted_metric 99\"} 1\n", "m{a=\nwanted_metric 99} 1");
    let forged = b"m{a=\"\\nwanted_metric_name 99\",b=\" wanted_metric_name 9\"} 1\n".repeat(40);
    let wanted = Wanted::names(["wanted_metric_name"]);
    let body = read(&forged, Format::Text, &wanted, |_| true, &Limits::default()).expect("reads");
    assert_eq!((body.samples.len(), body.refused, body.lines), (0, None, 0));
}

#[test]
fn a_bad_line_costs_that_line() {
    use Format::{OpenMetrics, Text};
    for (line, expected) in [
        ("m", "line 2, column 2: found the end, expected `{` or a blank"),
        ("m{", "line 2, column 3: found the end, expected a label name or `}`"),
        ("m{a", "line 2, column 4: found the end, expected `=` after the label name"),
        ("m{a=b} 1", "line 2, column 5: found \"b} 1\", expected a label value in `\"`"),
        ("m{a=\"b} 1", "line 2, column 10: found the end, expected a closing `\"`"),
        ("m{a=\"b\"", "line 2, column 8: found the end, expected `,` or `}`"),
        ("m{a=\"b\"c=\"d\"} 1", "line 2, column 8: found \"c=\\\"d\\\"} 1\", expected `,` or `}`"),
        ("m{,} 1", "line 2, column 3: found \",} 1\", expected a label name or `}`"),
        (
            "m{1=\"b\"} 1",
            "line 2, column 3: found \"1=\\\"b\\\"} 1\", expected a label name or `}`",
        ),
        (
            "m{a=\"b\",a=\"c\"} 1",
            "line 2, column 9: found \"a=\\\"c\\\"} 1\", expected a label name not used before on \
             this line",
        ),
        (
            "m{a=\"\\x\"} 1",
            "line 2, column 6: found \"\\\\x\\\"} 1\", expected one of `\\\\`, `\\\"` and `\\n`",
        ),
        ("m{a=\"b\"}", "line 2, column 9: found the end, expected a decimal value, NaN or Inf"),
        ("m 1_000", "line 2, column 3: found \"1_000\", expected a decimal value, NaN or Inf"),
        ("m 0x1p3", "line 2, column 3: found \"0x1p3\", expected a decimal value, NaN or Inf"),
        ("m 1e999", "line 2, column 3: found \"1e999\", expected a decimal value, NaN or Inf"),
        ("m 1 1.5", "line 2, column 5: found \"1.5\", expected a timestamp in whole milliseconds"),
        ("m 1 2 3", "line 2, column 7: found \"3\", expected the end of the line"),
        (
            "m 1 # {id=\"x\"} 1",
            "line 2, column 5: found \"# {id=\\\"x\\\"} 1\", expected a timestamp in whole \
             milliseconds",
        ),
        ("m\u{a0}1", "line 2, column 2: found \"\\u{a0}1\", expected `{` or a blank"),
        ("m=1", "line 2, column 2: found \"=1\", expected `{` or a blank"),
        (
            "m{\"n\"} 1",
            "line 2, column 6: found \"} 1\", expected `=`, since the metric has a name already",
        ),
    ] {
        check_refused(Text, line, expected);
    }
    for (line, expected) in [
        ("m  1", "line 2, column 3: found \" 1\", expected a decimal value, NaN or Inf"),
        ("m 1\r", "line 2, column 3: found \"1\\r\", expected a decimal value, NaN or Inf"),
        (" m 1", "line 2, column 1: found \" m 1\", expected a metric name"),
        ("m{a=\"b\",} 1", "line 2, column 9: found \"} 1\", expected a label name or `}`"),
        ("m 1 NaN", "line 2, column 5: found \"NaN\", expected a timestamp in seconds or ` # {`"),
        (
            "m 1 # {a=\"b\"}",
            "line 2, column 14: found the end, expected a space before the \
          exemplar's value",
        ),
    ] {
        check_refused(OpenMetrics, line, expected);
    }
}

#[test]
fn one_broken_byte_costs_its_line() {
    let body = b"good 1\nm{a=\"\xff\"} 1\ngood 2\n";
    let body = whole(body, Format::Text).expect("reads");
    assert_eq!(shown(&body), ["good{} 1", "good{} 2"]);
    let refused = body.refused.expect("one line");
    assert_eq!(refused.first, "line 2, column 6: found \"\u{fffd}\\\"} 1\", expected UTF-8");
}

#[test]
fn timestamps_are_seconds_in_both_formats() {
    let check = |body: &str, format, expected: f64| {
        let mut seen = Vec::new();
        let report = visit(body.as_bytes(), format, &Wanted::all(), &Limits::default(), |sample| {
            seen.push(sample.timestamp_secs);
        });
        assert_eq!(report.map(|report| report.samples), Ok(1));
        assert_eq!(seen, [Some(expected)], "{body:?}");
    };
    check("m 1 1700000000250\n", Format::Text, 1_700_000_000.25);
    check("m 1 1700000000.25\n# EOF\n", Format::OpenMetrics, 1_700_000_000.25);
    check("m 1 1700000000.25 # {id=\"x\"} 0.5 1.5\n# EOF", Format::OpenMetrics, 1_700_000_000.25);
}

#[test]
fn wanted_names_are_whole_names_at_the_beginning_of_a_line() {
    let body = "wanted_requests_total 1\n\
                # HELP wanted_requests_total 9\n\
                wanted_requests_total_more 9\n\
                more_wanted_requests_total 9\n\
                other{name=\"wanted_requests_total\"} 9\n\
                other{name=\"\\nwanted_requests_total 9\"} 9\n  \
                wanted_requests_total{a=\"b\"} 2\n\
                {\"wanted_requests_total\",a=\"c\"} 3\n\
                {\"other\",name=\"wanted_requests_total\"} 9\n\
                {a=\"d\",\"wanted_requests_total\"} 4\n\
                wanted_requests_total=9\n\
                wanted_requests_total 5"
        .repeat(3)
        .replace("5wanted", "5\nwanted");
    for names in [&["wanted_requests_total"][..], &["wanted_requests_total", "up"]] {
        let wanted = Wanted::names(names);
        let read = read(body.as_bytes(), Format::Text, &wanted, |_| true, &Limits::default());
        let read = read.expect("reads");
        let values: Vec<f64> = read.samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [1., 2., 3., 4., 5.].repeat(3), "{names:?}");
        let refused = read.refused.expect("one line in each part");
        assert_eq!(
            (refused.lines, refused.first.as_str()),
            (3, "line 11, column 22: found \"=9\", expected `{` or a blank")
        );
    }
}

#[test]
fn what_is_no_exposition_is_refused_by_name() {
    use Format::{OpenMetrics, Text};
    check_body(b"", Text, Refusal::Empty);
    check_body(b" \n\n", OpenMetrics, Refusal::Empty);
    check_body(b"\n<!DOCTYPE html><html>", Text, Refusal::Html);
    check_body(b"<html>", OpenMetrics, Refusal::Html);
    check_body(b"\x1f\x8b\x08\0\0\0", Text, Refusal::Compressed);
    check_body(b"good_metric_of_the_test 1\n", OpenMetrics, Refusal::NoEof);
    check_body(b"m 1\n# EOF \n", OpenMetrics, Refusal::TextAfterEof { line: 2 });
    check_body(b"m 1\n# EOF\nm 1\n", OpenMetrics, Refusal::TextAfterEof { line: 2 });
    check_body(b"m 1\n# EO", OpenMetrics, Refusal::NoEof);
    let first = "line 1, column 1: found \"404 page not found\", expected a metric name";
    let refusal = Refusal::NotExposition { first: first.to_owned() };
    check_body(b"404 page not found\n", Text, refusal);
    let first = "line 1, column 10: found \":\\\"UP\\\"}\", expected `,` or `}`";
    let refusal = Refusal::NotExposition { first: first.to_owned() };
    check_body(b"{\"status\":\"UP\"}", Text, refusal);
    // A second end is met only where every line is read.
    let twice = b"m 1\n# EOF\nm 1\n# EOF\n";
    assert_eq!(whole(twice, OpenMetrics), Err(Refusal::TextAfterEof { line: 2 }));
}

#[test]
fn content_types_choose_the_format() {
    for (content_type, expected) in [
        ("text/plain; version=0.0.4; charset=utf-8", Some(Format::Text)),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Some(Format::Text)),
        ("TEXT/PLAIN", Some(Format::Text)),
        ("", Some(Format::Text)),
        (
            "application/openmetrics-text; version=1.0.0; charset=\"UTF-8\"",
            Some(Format::OpenMetrics),
        ),
        ("text/plain; charset=iso-8859-1", None),
        ("text/html; charset=utf-8", None),
        ("application/json", None),
        ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily", None),
    ] {
        assert_eq!(Format::of_content_type(content_type), expected, "{content_type}");
    }
}

#[test]
fn every_limit_is_reached_and_named() {
    let limits = Limits {
        body_bytes: 400,
        samples: 3,
        line_bytes: 60,
        labels_per_series: 2,
        broken_utf8_lines: 2,
    };
    let check = |body: &[u8], expected: Result<(usize, Option<&str>), Refusal>| {
        for wanted in [Wanted::all(), Wanted::names(["m"])] {
            let found = read(body, Format::Text, &wanted, |_| true, &limits);
            let found = found.map(|body| (body.samples.len(), body.refused.map(|it| it.first)));
            let expected = expected.clone().map(|(count, first)| (count, first.map(str::to_owned)));
            assert_eq!(found, expected);
        }
    };
    check(b"m 1\nm 2\nm 3\n", Ok((3, None)));
    check(b"m 1\nm 2\nm 3\nm 4\n", Err(Refusal::TooManySamples { limit: 3 }));
    check(&[b'm'; 401], Err(Refusal::TooLarge { found: 401, limit: 400 }));
    let long = format!("m 1\nm{{a=\"{}\"}} 1\n", "x".repeat(60));
    check(
        long.as_bytes(),
        Ok((1, Some("line 2, column 61: found \"xxxxx\\\"} 1\", expected a shorter line"))),
    );
    check(
        b"m{a=\"1\",b=\"2\"} 1\nm{a=\"1\",b=\"2\",c=\"3\"} 1\n",
        Ok((1, Some("line 2, column 15: found \"c=\\\"3\\\"} 1\", expected fewer labels"))),
    );
    let utf8 = "line 2, column 4: found \"\u{fffd}\", expected UTF-8";
    check(b"m 1\nm 1\xff\nm 1\xff\n", Ok((1, Some(utf8))));
    check(b"m 1\nm 1\xff\nm 1\xff\nm 1\xff\n", Err(Refusal::NotUtf8 { limit: 2, first_line: 2 }));
    let visited = visit(b"m 1\nm 2\nm 3\nm 4\n", Format::Text, &Wanted::all(), &limits, |_| {});
    assert_eq!(visited, Err(Refusal::TooManySamples { limit: 3 }));
    let kept =
        read(b"m 1\nm 2\nm 3\nm 4\n", Format::Text, &Wanted::all(), |m| m.value > 3.0, &limits);
    assert_eq!(kept.map(|body| body.samples.len()), Ok(1));
}
