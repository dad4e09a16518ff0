//! The verdict as a metric, asked for as of Prometheus: for controllers that read metrics and know no
//! other provider.
//!
//! `rollgate_verdict` is 1 for a promotion, -1 for a rollback and 0 for everything else;
//! `rollgate_verdict_final` is 1 once the analysis is over. There is one series for each service and
//! version of the canary: its newest analysis; `newest="true"` is on the one that is the newest of its
//! service, since some controllers know no versions and read one series of several. Of what nobody
//! asked to have judged there is none. The present is answered, whatever `time` says. Errors have the
//! shape that Prometheus' clients read.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Query as UriQuery, Request, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        analyses::ask,
        desk::{AnalysisSummary, AnalysisView, DeskError, ListFilter},
        input::collect,
        problem::Problem,
        verdict::SmallVerdict,
    },
    ruling::Ruling,
};

mod selector;

use selector::{Matcher, NAME, QUERY_BYTES_MAX, Query};

/// Bytes of a form: a query with every byte escaped, and what goes with it.
const FORM_BYTES_MAX: usize = 4 * QUERY_BYTES_MAX;

/// The verdict: 1, 0 or -1.
const VERDICT: &str = "rollgate_verdict";

/// Whether it is over: 1 or 0.
const FINAL: &str = "rollgate_verdict_final";

/// Series of one answer.
const SERIES_MAX: usize = 200;

/// Analyses that are looked through, newest first.
const ANALYSES_MAX: usize = 1_000;

/// Analyses on a page, when one service's version is asked for, and when not.
const PAGES: (u32, u32) = (20, 200);

/// What is asked. Other parameters are not read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = QueryForm)]
struct Asked {
    /// A metric name with label matchers, or `vector(NUMBER)`.
    #[serde(default)]
    query: String,
    /// Unix seconds or RFC 3339.
    #[serde(default)]
    time: Option<String>,
}

/// What Prometheus answers.
#[derive(Serialize, ToSchema)]
#[schema(as = QueryAnswer)]
pub(super) struct Answer {
    /// Always `success`.
    status: &'static str,
    data: Vector,
    /// What may be missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QueryVector)]
struct Vector {
    /// Always `vector`.
    result_type: &'static str,
    /// Newest first.
    result: Vec<Sample>,
}

/// One series at one time.
#[derive(Serialize, ToSchema)]
#[schema(as = QuerySample)]
struct Sample {
    metric: BTreeMap<String, String>,
    /// Unix seconds, and the value as a text.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 2, max_items = 2)]
    value: (f64, String),
}

/// What Prometheus says when it cannot answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryError {
    /// Always `error`.
    status: &'static str,
    /// `bad_data` or `unavailable`.
    error_type: &'static str,
    error: String,
}

/// The verdict as a metric.
#[utoipa::path(
    get, path = "/api/v1/query", tag = "prometheus", 
    params(
        ("query" = String, Query, description = "A metric name with label matchers, or `vector(NUMBER)`"),
        ("time" = Option<String>, Query, description = "Unix seconds or RFC 3339; the present is answered"),
    ),
    responses(
        (status = 200, description = "The series", body = Answer),
        (status = 400, description = "The query cannot be read", body = QueryError),
        (status = 503, description = "The store does not answer", body = QueryError),
    )
)]
pub(super) async fn query_by_get(State(api): State<Api>, uri: Uri) -> Response {
    answered(&api, asked(&uri)).await
}

/// The verdict as a metric, asked by a form.
#[utoipa::path(
    post, path = "/api/v1/query", tag = "prometheus",
    request_body(content = Asked, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The series", body = Answer),
        (status = 400, description = "The query cannot be read", body = QueryError),
        (status = 408, description = "The form did not arrive in time", body = Problem,
         content_type = "application/problem+json"),
        (status = 413, description = "The form is too large", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer", body = QueryError),
    )
)]
pub(super) async fn query_by_form(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let form = collect(&api, request.into_body(), FORM_BYTES_MAX).await?;
    // A form is written as a query is.
    let uri = std::str::from_utf8(&form).ok().and_then(|form| format!("/?{form}").parse().ok());
    let asked = uri.ok_or_else(|| "the form cannot be read".to_owned()).and_then(|uri| asked(&uri));
    Ok(answered(&api, asked).await)
}

fn asked(uri: &Uri) -> Result<Query, String> {
    let UriQuery(asked) = UriQuery::<Asked>::try_from_uri(uri)
        .map_err(|error| format!("the parameters cannot be read: {error}"))?;
    let is_time = |text: &str| {
        text.parse::<f64>().is_ok_and(f64::is_finite) || text.parse::<jiff::Timestamp>().is_ok()
    };
    if let Some(time) = asked.time.filter(|time| !time.is_empty() && !is_time(time)) {
        return Err(format!("invalid parameter \"time\": cannot parse {time:.60?}"));
    }
    selector::parse(&asked.query).map_err(|fault| format!("invalid parameter \"query\": {fault}"))
}

async fn answered(api: &Api, asked: Result<Query, String>) -> Response {
    let now = api.desk.now().as_secs_f64();
    let found = match asked {
        Err(fault) => return error(StatusCode::BAD_REQUEST, "bad_data", fault),
        Ok(Query::Number(number)) => {
            Ok(Found { series: vec![(BTreeMap::new(), number)], is_whole: true })
        }
        Ok(Query::Series(matchers)) => series(api, &matchers).await,
    };
    match found {
        Err(problem) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", problem.detail().to_owned())
        }
        Ok(found) => {
            let sample = |(metric, value): (BTreeMap<String, String>, f64)| Sample {
                metric,
                value: (now, value.to_string()),
            };
            let result = found.series.into_iter().map(sample).collect();
            let warning = format!(
                "only the newest {ANALYSES_MAX} analyses and {SERIES_MAX} series are answered"
            );
            let warnings = (!found.is_whole).then_some(warning).into_iter().collect();
            let data = Vector { result_type: "vector", result };
            Json(Answer { status: "success", data, warnings }).into_response()
        }
    }
}

fn error(status: StatusCode, error_type: &'static str, error: String) -> Response {
    (status, Json(QueryError { status: "error", error_type, error })).into_response()
}

/// Series with their values, and whether these are all.
struct Found {
    series: Vec<(BTreeMap<String, String>, f64)>,
    is_whole: bool,
}

/// What is known of one analysis.
struct Line {
    labels: [(&'static str, String); 7],
    verdict: String,
    is_final: bool,
}

async fn series(api: &Api, matchers: &[Matcher]) -> Result<Found, Problem> {
    let mut found = Found { series: Vec::new(), is_whole: true };
    let (lines, is_whole) = match selector::only(matchers, "analysis") {
        Some(id) => (one(api, id).await?, true),
        None => newest(api, matchers).await?,
    };
    found.is_whole = is_whole;
    for line in lines {
        for name in [VERDICT, FINAL] {
            let mut labels: BTreeMap<&str, &str> =
                line.labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
            labels.insert(NAME, name);
            // An empty label is none.
            labels.retain(|_, value| !value.is_empty());
            if !matchers.iter().all(|matcher| matcher.holds(&labels)) {
                continue;
            }
            if found.series.len() == SERIES_MAX {
                found.is_whole = false;
                return Ok(found);
            }
            let value = match name {
                FINAL => f64::from(u8::from(line.is_final)),
                _ => direction(api, &line).await?,
            };
            let labels =
                labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned()));
            found.series.push((labels.collect(), value));
        }
    }
    Ok(found)
}

/// 1 to go on, -1 to go back, 0 for neither. What the rule file says to do when inconclusive counts.
async fn direction(api: &Api, line: &Line) -> Result<f64, Problem> {
    let ruling = match line.verdict.as_str() {
        "promote" => Ruling::Promote,
        "rollback" => Ruling::Rollback,
        "inconclusive" if line.is_final => match view(api, &line.labels[0].1).await? {
            Some(view) => Ruling::of(&SmallVerdict::of(&view)),
            None => Ruling::Held,
        },
        _ => Ruling::Watching,
    };
    Ok(match ruling {
        Ruling::Promote => 1.0,
        Ruling::Rollback => -1.0,
        Ruling::Held | Ruling::Watching => 0.0,
    })
}

async fn view(api: &Api, id: &str) -> Result<Option<AnalysisView>, Problem> {
    ask(api, async {
        match api.desk.analysis(id).await {
            Ok(view) => Ok(Some(view)),
            Err(DeskError::Unknown(_)) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

async fn one(api: &Api, id: &str) -> Result<Vec<Line>, Problem> {
    let Some(view) = view(api, id).await? else { return Ok(Vec::new()) };
    let newest =
        ListFilter { service: Some(view.service.clone()), limit: Some(1), ..ListFilter::default() };
    let newest = ask(api, api.desk.list(newest)).await?.analyses;
    let is_newest = newest.first().is_some_and(|newest| newest.id == view.id);
    let small = SmallVerdict::of(&view);
    let baseline = view.baseline.map(|arm| arm.version).unwrap_or_default();
    Ok(vec![Line {
        labels: [
            ("analysis", view.id),
            ("service", view.service),
            ("canary_version", view.canary.version),
            ("baseline_version", baseline),
            ("rules", view.rules.name),
            ("state", view.state),
            ("newest", is_newest.to_string()),
        ],
        verdict: small.verdict,
        is_final: small.is_final,
    }])
}

/// The newest analysis of each service and version, and whether all of them were looked through.
async fn newest(api: &Api, matchers: &[Matcher]) -> Result<(Vec<Line>, bool), Problem> {
    let service = selector::only(matchers, "service");
    let version = selector::only(matchers, "canary_version");
    let (few, many) = PAGES;
    let limit = if service.and(version).is_some() { few } else { many };
    let (mut lines, mut seen, mut services) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (mut after, mut looked) = (None, 0);
    loop {
        let filter = ListFilter {
            service: service.map(str::to_owned),
            after,
            limit: Some(limit),
            ..ListFilter::default()
        };
        let page = ask(api, api.desk.list(filter)).await?;
        looked += page.analyses.len();
        for summary in page.analyses {
            let is_newest = services.insert(summary.service.clone());
            let is_asked = version.is_none_or(|version| version == summary.canary_version);
            if is_asked && seen.insert((summary.service.clone(), summary.canary_version.clone())) {
                lines.push(line(summary, is_newest));
            }
        }
        let is_found = service.and(version).is_some() && !lines.is_empty();
        match page.next {
            Some(_) if is_found => return Ok((lines, true)),
            Some(_) if looked >= ANALYSES_MAX => return Ok((lines, false)),
            Some(next) => after = Some(next),
            None => return Ok((lines, true)),
        }
    }
}

fn line(summary: AnalysisSummary, is_newest: bool) -> Line {
    let is_final = summary.state != "running";
    let verdict =
        if summary.state == "cancelled" { "cancelled".to_owned() } else { summary.verdict };
    Line {
        labels: [
            ("analysis", summary.id),
            ("service", summary.service),
            ("canary_version", summary.canary_version),
            ("baseline_version", summary.baseline_version),
            ("rules", summary.rules.name),
            ("state", summary.state),
            ("newest", is_newest.to_string()),
        ],
        verdict,
        is_final,
    }
}
