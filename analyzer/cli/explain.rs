//! `rollgate explain ID`: what was decided about a release and why, and what happened on the way; of
//! an analysis that runs, how it stands.
//!
//! A running service is asked, or the store of one that does not run is read. Both give the same
//! view, timeline and words; nothing is judged or worded here.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use serde::Serialize;

use super::{Output, PROMOTE, UsageError, display, print_json, token::Credentials};
use crate::{
    api::desk::{AnalysisSummary, AnalysisView, ListFilter},
    report::timeline::Timeline,
};

mod source;
mod text;

use source::Source;

/// Where a service listens unless it is told otherwise.
const SERVER_DEFAULT: &str = "http://127.0.0.1:8750";

/// Analyses that are listed when none is named.
const LISTED: u32 = 20;

/// Candidates that are named when an id is not one.
const CANDIDATES: usize = 5;

/// The word for the newest analysis.
const LATEST: &str = "latest";

/// Arguments of `explain`.
#[derive(Args)]
#[command(after_help = "\
ID is the id of an analysis, the beginning of one, or `latest`. Without it the newest are listed.
A service that listens elsewhere is named by --server; of one that does not run, --store reads the
file. Where the service wants a token, $ROLLGATE_TOKEN or --token-file says it; `read` is enough.

  rollgate explain
  rollgate explain latest --service shop
  rollgate explain 019f3c --store /var/lib/rollgate/rollgate.db
  rollgate explain 019f3c --rules > as-it-was-judged.yaml")]
pub struct ExplainArgs {
    /// Id of an analysis, the beginning of one, or `latest`.
    id: Option<String>,
    /// Only analyses of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Address of the service.
    #[arg(long, value_name = "URL", default_value = SERVER_DEFAULT, conflicts_with = "store")]
    server: String,
    /// The store of a service, to be read without it.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Print the rule file that the analysis was judged by, and nothing else.
    #[arg(long, requires = "id", conflicts_with = "json")]
    rules: bool,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    output: Output,
}

/// Everything there is to say, as `--json` prints it.
#[derive(Serialize)]
struct Explanation {
    analysis: AnalysisView,
    timeline: Timeline,
}

/// Runs the command.
pub fn main(args: &ExplainArgs) -> anyhow::Result<u8> {
    super::init_logging("warn");
    super::runtime()?.block_on(explain(args))
}

async fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    let source = match &args.store {
        Some(path) => Source::store(path).await?,
        None => Source::server(&args.server, &args.credentials)?,
    };
    let mut out = io::stdout().lock();
    let (color, width) = display::stdout_style();
    let Some(wanted) = &args.id else {
        let filter = ListFilter {
            service: args.service.clone(),
            limit: Some(LISTED),
            ..ListFilter::default()
        };
        let page = source.list(&filter).await?;
        if args.output.json {
            print_json(&mut out, &page)?;
        } else {
            write!(out, "{}", text::list(&page.analyses, args.service.as_deref(), color, width))?;
        }
        return Ok(PROMOTE);
    };
    let id = resolve(&source, wanted, args.service.as_deref()).await?;
    if args.rules {
        write!(out, "{}", source.rules(&id).await?)?;
    } else {
        let analysis = source.analysis(&id).await?;
        let timeline = source.timeline(&id).await?;
        if args.output.json {
            print_json(&mut out, &Explanation { analysis, timeline })?;
        } else {
            write!(out, "{}", text::whole(&analysis, &timeline, color, width))?;
        }
    }
    out.flush()?;
    Ok(PROMOTE)
}

/// The id of the one analysis that is meant.
async fn resolve(source: &Source, wanted: &str, service: Option<&str>) -> anyhow::Result<String> {
    let service = service.map(str::to_owned);
    let newest = |limit: usize| ListFilter {
        service: service.clone(),
        limit: u32::try_from(limit).ok(),
        ..ListFilter::default()
    };
    if wanted == LATEST {
        let page = source.list(&newest(1)).await?;
        let of = service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
        let first = page.analyses.into_iter().next();
        let none = || UsageError(format!("there is no analysis{of}")).into();
        return first.map(|line| line.id).ok_or_else(none);
    }
    // Pages go down from an id: this one is just above all that begin as is wanted.
    let above = ListFilter { after: Some(format!("{wanted}~")), ..newest(CANDIDATES + 1) };
    let page = source.list(&above).await?;
    let (mut matching, others): (Vec<_>, Vec<_>) =
        page.analyses.into_iter().partition(|line| line.id.starts_with(wanted));
    // They come from above, so the id itself comes last.
    if matching.last().is_some_and(|line| line.id == wanted) {
        return Ok(wanted.to_owned());
    }
    match (matching.len(), matching.pop()) {
        (1, Some(line)) => Ok(line.id),
        (0, _) | (_, None) => {
            let near = match others.is_empty() {
                false => others,
                true => source.list(&newest(CANDIDATES)).await?.analyses,
            };
            let shown: String = wanted.chars().take(64).collect();
            let near = candidates(&near);
            Err(UsageError(format!("no analysis has an id that begins with {shown:?}{near}"))
                .into())
        }
        (_, Some(last)) => {
            matching.push(last);
            let near = candidates(&matching);
            Err(UsageError(format!("several analyses begin with {wanted:?}, say more of it{near}"))
                .into())
        }
    }
}

/// The nearest analyses, a line each; nothing where there is none.
fn candidates(lines: &[AnalysisSummary]) -> String {
    let mut words = String::new();
    for line in lines.iter().take(CANDIDATES) {
        words.push_str(&format!("\n  {}", text::candidate(line)));
    }
    if words.is_empty() { words } else { format!("; the nearest are:{words}") }
}
