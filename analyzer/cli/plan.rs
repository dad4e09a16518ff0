//! `rollgate plan FILE --traffic RATE`: how long a rule file needs, by formula and at once.
//!
//! Where `simulate` counts, this reckons; the noise alone is measured, on a simulated history. What
//! it says of a rule is about the middle of many releases.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::{
    PROMOTE,
    assume::Assumptions,
    display::{
        self,
        line::{Line, Tone, clean, left, right, width, wrap},
    },
    traffic_text,
};
use crate::{
    engine::rule::{Action, Margin, Otherwise, RuleSet},
    report::format,
    simulation::{
        FaultKind,
        outlook::{Outlook, ProofOutlook, Wait, outlook},
        questions::Assumed,
    },
};

/// The version of the JSON shape.
const SCHEMA: &str = "rollgate.plan.v1";

/// Lines of one warning at most.
const WARNING_LINES_MAX: usize = 4;

/// Columns of a time, and of a rule at most.
const TIME: usize = 11;
const RULE_MAX: usize = 44;

/// Arguments of `plan`.
#[derive(Args)]
#[command(after_help = "\
Reckons how soon each rule finds faults of a few sizes, and how long promotion's proofs take for a
healthy release. It warns when a release cannot be promoted before its deadline at this traffic.
Times are those of the middle one of many releases; some take twice as long. `-` is never, or not
within two weeks; `?` is not reckoned: `rollgate simulate` measures it.
Every share of events is taken to be that of --errors, and every latency that of --latency.

  rollgate plan rules/recommended.yaml --traffic 50rps
  rollgate plan shop.yaml --traffic 3000/min --baseline-traffic 200/s --errors 0.1% --noise calm
  rollgate plan shop.yaml --traffic 1/min --json")]
pub struct PlanArgs {
    #[command(flatten)]
    assumptions: Assumptions,
    /// Seed of the history that noise is learnt from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(args: &PlanArgs) -> anyhow::Result<u8> {
    let (rules, assumed) = args.assumptions.read()?;
    let found = outlook(&rules, &assumed, args.seed);
    let plan = plan(&args.assumptions.file.display().to_string(), &rules, &assumed, &found);
    let mut out = io::stdout().lock();
    if args.json {
        super::print_json(&mut out, &plan)?;
    } else {
        let (color, columns) = display::stdout_style();
        write!(out, "{}", table(&plan, color, columns))?;
    }
    out.flush()?;
    Ok(PROMOTE)
}

/// What is expected: the one shape that table and JSON are written from. Times in seconds, traffic
/// in requests a second, shares in 0..=1.
#[derive(Debug, Serialize)]
struct Plan {
    /// [`SCHEMA`].
    schema: &'static str,
    file: String,
    service: String,
    canary_rps: f64,
    baseline_rps: f64,
    error_share: f64,
    /// History that noise was learnt from; null for none.
    history_secs: Option<f64>,
    interval_secs: f64,
    hold_secs: f64,
    deadline_secs: f64,
    rules: Vec<RulePlan>,
    promotion: PromotionPlan,
    /// What should not stay as it is, in sentences.
    warnings: Vec<String>,
}

/// How soon one rule fires.
#[derive(Debug, Serialize)]
struct RulePlan {
    rule: String,
    then: String,
    /// Noise intensity of its first signal, in seconds.
    kappa_secs: f64,
    faults: Vec<FaultPlan>,
}

/// How soon one fault is found.
#[derive(Debug, Serialize)]
struct FaultPlan {
    /// `errors`, `latency`, `down` or `restart`.
    fault: &'static str,
    /// Multiple of what is healthy; null where there is no size.
    size: Option<f64>,
    #[serde(flatten)]
    wait: WaitPlan,
}

/// How long something takes: `secs` where `outcome` is `about`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct WaitPlan {
    /// `about`, `never`, or `unknown` where there is no formula.
    outcome: &'static str,
    secs: Option<f64>,
}

/// When a healthy release is promoted.
#[derive(Debug, Serialize)]
struct PromotionPlan {
    proofs: Vec<ProofPlan>,
    #[serde(flatten)]
    wait: WaitPlan,
}

/// How long one proof takes.
#[derive(Debug, Serialize)]
struct ProofPlan {
    signal: String,
    /// Multiple of the baseline.
    factor: f64,
    /// Value that is good enough whatever the baseline does.
    or: Option<f64>,
    #[serde(flatten)]
    wait: WaitPlan,
    /// Requests a second of both arms at which it would be shown before the deadline.
    rps_needed: Option<f64>,
}

fn plan(file: &str, rules: &RuleSet, assumed: &Assumed, found: &Outlook) -> Plan {
    let rule_plans = found.rules.iter().map(|outlook| {
        let rule = &rules.rules[outlook.rule];
        let faults = outlook.faults.iter().map(|(fault, wait)| {
            let (fault, size) = named(*fault);
            FaultPlan { fault, size, wait: wait_plan(*wait) }
        });
        let clauses = rule.when.clauses();
        let first = clauses.first().map_or(0, |clause| clause.signal);
        RulePlan {
            rule: rule.text.clone(),
            then: rule.then.to_string(),
            kappa_secs: found.kappa_secs[first],
            faults: faults.collect(),
        }
    });
    let proofs = found.proofs.iter().map(|proof| ProofPlan {
        signal: rules.signals[proof.signal].name.clone(),
        factor: proof.margin.factor,
        or: proof.margin.or,
        wait: wait_plan(proof.wait),
        rps_needed: proof.rps_needed,
    });
    let hold: f64 = match rules.steps.is_empty() {
        true => rules.promote.after.as_secs_f64(),
        false => rules.steps.iter().map(|step| step.hold.as_secs_f64()).sum(),
    };
    Plan {
        schema: SCHEMA,
        file: file.to_owned(),
        service: rules.service.clone(),
        canary_rps: assumed.traffic.canary_rps,
        baseline_rps: assumed.traffic.baseline_rps,
        error_share: assumed.truth.error_share,
        history_secs: assumed.history.map(|history| history.as_secs_f64()),
        interval_secs: rules.observe.interval.as_secs_f64(),
        hold_secs: hold,
        deadline_secs: rules.promote.deadline.as_secs_f64(),
        rules: rule_plans.collect(),
        promotion: PromotionPlan { proofs: proofs.collect(), wait: wait_plan(found.promotion) },
        warnings: warnings(rules, found),
    }
}

fn named(fault: FaultKind) -> (&'static str, Option<f64>) {
    match fault {
        FaultKind::Errors { factor } => ("errors", Some(factor)),
        FaultKind::Latency { factor } => ("latency", Some(factor)),
        FaultKind::Level { factor } => ("level", Some(factor)),
        FaultKind::Leak { bytes_per_sec } => ("leak", Some(bytes_per_sec)),
        FaultKind::Crash { down_secs, .. } if down_secs > 0.0 => ("down", None),
        FaultKind::Crash { .. } => ("restart", None),
        FaultKind::MissingScrapes { .. } | FaultKind::CounterResets { .. } => ("scrapes", None),
    }
}

fn wait_plan(wait: Wait) -> WaitPlan {
    match wait {
        Wait::About(time) => WaitPlan { outcome: "about", secs: Some(time.as_secs_f64()) },
        Wait::Never => WaitPlan { outcome: "never", secs: None },
        Wait::Unknown => WaitPlan { outcome: "unknown", secs: None },
    }
}

/// What should not stay as it is.
fn warnings(rules: &RuleSet, found: &Outlook) -> Vec<String> {
    let deadline = rules.promote.deadline;
    let until = format::duration(deadline.as_secs_f64());
    let mut warnings: Vec<String> =
        found.proofs.iter().filter_map(|proof| proof_warning(rules, proof, &until)).collect();
    if let Wait::About(time) = found.promotion
        && warnings.is_empty()
        && time > deadline
    {
        warnings.push(format!(
            "A healthy release takes about {}, longer than the deadline of {until}.",
            format::duration(time.as_secs_f64())
        ));
    }
    if !warnings.is_empty() {
        warnings.push(match rules.promote.otherwise {
            Otherwise::Hold => "At the deadline such a release is held.".to_owned(),
            Otherwise::Rollback => "At the deadline such a release is rolled back.".to_owned(),
            Otherwise::Promote => {
                "At the deadline such a release is promoted without proof.".to_owned()
            }
        });
    }
    for outlook in &found.rules {
        let rule = &rules.rules[outlook.rule];
        let never = outlook.faults.iter().all(|(_, wait)| *wait == Wait::Never);
        if rule.then == Action::Rollback && never && !outlook.faults.is_empty() {
            warnings.push(format!("`{}` finds none of these faults at this traffic.", rule.text));
        }
    }
    warnings
}

fn proof_warning(rules: &RuleSet, proof: &ProofOutlook, until: &str) -> Option<String> {
    let takes = match proof.wait {
        Wait::About(time) if time > rules.promote.deadline => {
            format!("would take about {}", format::duration(time.as_secs_f64()))
        }
        Wait::Never => "would take weeks".to_owned(),
        Wait::About(_) | Wait::Unknown => return None,
    };
    let help = match proof.rps_needed {
        Some(rps) => format!("about {} over both versions would do", traffic_text(rps)),
        None => "more traffic does not help: loosen the margin, or give it an `or`".to_owned(),
    };
    Some(format!(
        "A healthy release cannot be shown {} before the deadline of {until}: that {takes} at this \
         traffic; {help}.",
        within(&rules.signals[proof.signal].name, proof.margin)
    ))
}

fn within(signal: &str, margin: Margin) -> String {
    format!("to keep {signal} within {}x", margin.factor)
}

fn table(plan: &Plan, color: bool, columns: usize) -> String {
    let mut lines = vec![
        Line::of(format!(" {}", clean(&plan.service)), Tone::Strong)
            .and(format!("  {}", clean(&plan.file)), Tone::Dim),
        Line::of(
            format!(
                " {} to the canary and {} to the baseline, {} errors",
                traffic_text(plan.canary_rps),
                traffic_text(plan.baseline_rps),
                format::quantity(plan.error_share, "share")
            ),
            Tone::Dim,
        ),
        Line::default(),
    ];
    lines.extend(finding_lines(plan));
    lines.push(Line::default());
    lines.extend(promotion_lines(plan));
    for warning in &plan.warnings {
        lines.push(Line::default());
        let room = columns.saturating_sub(4).min(100);
        for (number, text) in wrap(&clean(warning), room, WARNING_LINES_MAX).into_iter().enumerate()
        {
            let sign = if number == 0 { " ! " } else { "   " };
            lines.push(Line::of(sign, Tone::Warn).and(text, Tone::Plain));
        }
    }
    lines.iter().map(|line| line.render(color) + "\n").collect()
}

/// Rules with the same faults stand under one heading.
fn finding_lines(plan: &Plan) -> Vec<Line> {
    let longest = plan.rules.iter().map(|rule| width(&clean(&rule.rule))).max().unwrap_or(0);
    let names = longest.clamp(20, RULE_MAX) + 1;
    let mut lines = Vec::new();
    let mut last: Option<Vec<String>> = None;
    for rule in &plan.rules {
        let sizes: Vec<String> = rule.faults.iter().map(fault_name).collect();
        if last.as_ref() != Some(&sizes) {
            if last.is_some() {
                lines.push(Line::default());
            }
            let title = if last.is_none() { "a fault is found after about" } else { "" };
            let mut head = format!(" {}", left(title, names.max(29)));
            for size in &sizes {
                head += &right(size, TIME + 2);
            }
            lines.push(Line::of(head, Tone::Strong));
            last = Some(sizes);
        }
        let mut line =
            Line::of(format!(" {}", left(&clean(&rule.rule), names.max(29))), Tone::Plain);
        for fault in &rule.faults {
            line.push(right(&wait_text(fault.wait), TIME + 2), wait_tone(fault.wait));
        }
        if rule.faults.is_empty() {
            line.push("  see `rollgate simulate`", Tone::Dim);
        }
        lines.push(line);
    }
    lines
}

fn fault_name(fault: &FaultPlan) -> String {
    match fault.size {
        Some(size) => format!("{} {size}x", fault.fault),
        None => fault.fault.to_owned(),
    }
}

fn wait_text(wait: WaitPlan) -> String {
    match (wait.outcome, wait.secs) {
        (_, Some(secs)) => format::duration(secs.max(1.0)),
        ("never", None) => "-".to_owned(),
        (_, None) => "?".to_owned(),
    }
}

fn wait_tone(wait: WaitPlan) -> Tone {
    if wait.secs.is_some() { Tone::Plain } else { Tone::Dim }
}

fn promotion_lines(plan: &Plan) -> Vec<Line> {
    let mut lines = vec![Line::of(" a healthy release is promoted", Tone::Strong)];
    let hold = format::duration(plan.hold_secs);
    lines.push(Line::of(format!("   after {hold} at the earliest (the hold)"), Tone::Plain));
    for proof in &plan.promotion.proofs {
        let or = match proof.or {
            Some(_) => ", or is good enough anyway",
            None => "",
        };
        let text = format!("   {} is shown within {}x{or}: ", clean(&proof.signal), proof.factor);
        let time = match (proof.wait.outcome, proof.wait.secs) {
            (_, Some(secs)) => format!("after about {}", format::duration(secs.max(1.0))),
            ("never", None) => "not within two weeks".to_owned(),
            (_, None) => "there is no formula; see `rollgate simulate`".to_owned(),
        };
        let late = proof.wait.secs.is_none_or(|secs| secs > plan.deadline_secs);
        lines.push(
            Line::of(text, Tone::Plain).and(time, if late { Tone::Warn } else { Tone::Plain }),
        );
    }
    if let Some(secs) = plan.promotion.wait.secs {
        let deadline = format::duration(plan.deadline_secs);
        let tone = if secs > plan.deadline_secs { Tone::Warn } else { Tone::Good };
        lines.push(
            Line::of(format!("   in all after about {}", format::duration(secs)), tone)
                .and(format!("; the deadline is {deadline}"), Tone::Dim),
        );
    }
    lines
}
