//! What a good rule file holds: a matrix of signals and rules, or one sentence.

use std::time::Duration;

use crate::{
    cli::display::line::{Line, Tone, clean, left, width, wrap},
    engine::rule::{
        Action, Baseline, HealthHold, Margin, Otherwise, ReleaseStep, Rule, RuleSet, Signal,
        SignalKind, Test,
    },
    report::{build::unit_word, format::quantity},
    rulefile::{RuleFile, duration_text},
    signal::spec::{HealthTarget, MatchTest, Reads, Reduce, Selection, Selector},
};

/// Lines that one cell may take.
pub(super) const CELL_LINES_MAX: usize = 4;
/// Widest prose.
const PROSE_WIDTH_MAX: usize = 100;

/// What a rule file holds, as a table at most `columns` wide.
pub fn table(name: &str, file: &RuleFile, columns: usize) -> Vec<Line> {
    let rules = &file.rules;
    let mut lines = vec![
        Line::of(clean(name), Tone::Strong)
            .and("  good", Tone::Good)
            .and(format!(": {}", clean(&rules.service)), Tone::Plain),
        Line::default(),
    ];
    let signals = rules.signals.iter().zip(&file.specs);
    let rows = signals.enumerate().map(|(index, (signal, spec))| {
        let mut read = reads_text(signal, &spec.reads);
        if let (SignalKind::Ratio { floor }, true) =
            (signal.kind, rules.compares_by_evidence(index))
        {
            read = format!("{read}; floor {}", quantity(floor, "share"));
        }
        [clean(&signal.name), clean(&read), String::new()]
    });
    lines.extend(matrix(["signal", "what is read", ""], rows.collect(), columns));
    lines.push(Line::default());
    let rows = rules
        .rules
        .iter()
        .map(|rule| [clean(&rule.text), rule.then.to_string(), decided_by(rules, rule)]);
    let rows: Vec<[String; 3]> = rows.collect();
    lines.extend(matrix(["rule", "leads to", "decided by"], rows, columns));
    lines.push(Line::default());
    for sentence in [watching(rules), chance(rules), promotion(rules)] {
        if sentence.is_empty() {
            continue;
        }
        let room = columns.saturating_sub(2).min(PROSE_WIDTH_MAX);
        let wrapped = wrap(&clean(&sentence), room, usize::MAX);
        lines.extend(wrapped.into_iter().map(|line| Line::of(format!("  {line}"), Tone::Plain)));
    }
    lines
}

/// Rows under a heading, each column as wide as it has to be and the widest of them wrapped.
pub(super) fn matrix(head: [&str; 3], rows: Vec<[String; 3]>, columns: usize) -> Vec<Line> {
    let wide = |column: usize| {
        let cells = rows.iter().map(|row| width(&row[column]));
        cells.chain([width(head[column])]).max().unwrap_or(0)
    };
    let mut widths = [wide(0), wide(1), wide(2)];
    let room = columns.saturating_sub(8).max(30);
    while widths.iter().sum::<usize>() > room {
        let widest = (0..3).max_by_key(|column| widths[*column]).unwrap_or(0);
        widths[widest] -= 1;
    }
    let head = (0..3).map(|column| left(head[column], widths[column])).collect::<Vec<_>>();
    let mut lines = vec![Line::of(format!("  {}", head.join("  ")), Tone::Dim)];
    for row in &rows {
        let cells = [0, 1, 2].map(|column| wrap(&row[column], widths[column], CELL_LINES_MAX));
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        for at in 0..height {
            let mut line = Line::of("  ", Tone::Plain);
            for (column, cell) in cells.iter().enumerate() {
                let text = cell.get(at).map_or("", String::as_str);
                line.push(left(text, widths[column]) + "  ", tone(text));
            }
            lines.push(line);
        }
    }
    lines
}

fn tone(text: &str) -> Tone {
    match text {
        "rollback" => Tone::Bad,
        "investigate" => Tone::Warn,
        "ok" => Tone::Good,
        _ => Tone::Plain,
    }
}

/// What a rule file holds, in one sentence.
pub fn sentence(rules: &RuleSet) -> String {
    let count = |action: Action| rules.rules.iter().filter(|rule| rule.then == action).count();
    let actions: Vec<String> = [Action::Rollback, Action::Investigate, Action::Ok]
        .into_iter()
        .map(|action| (count(action), action))
        .filter(|(count, _)| *count > 0)
        .map(|(count, action)| format!("{count} {action}"))
        .collect();
    format!(
        "good: {}, {} and {} ({}) looked at every {}{}; promotes after {} at the earliest{}{}, and \
         at {} without enough data{}: {}",
        rules.service,
        plural(rules.signals.len(), "signal"),
        plural(rules.rules.len(), "rule"),
        actions.join(", "),
        duration_text(rules.observe.interval),
        match rules.baseline {
            Baseline::Concurrent => String::new(),
            Baseline::Before | Baseline::Offset(_) => format!(", {}", compared(rules.baseline)),
        },
        duration_text(rules.promote.after),
        steps(rules),
        margins(rules),
        duration_text(rules.promote.deadline),
        if rules.signals.iter().any(|signal| signal.margin.is_some()) { " or proof" } else { "" },
        match rules.promote.otherwise {
            Otherwise::Hold => "hold",
            Otherwise::Rollback => "roll back",
            Otherwise::Promote => "promote",
        },
    )
}

fn watching(rules: &RuleSet) -> String {
    let baseline = match rules.needs_baseline() {
        true => format!("; {}", compared(rules.baseline)),
        false => String::new(),
    };
    format!(
        "Looks every {}, over windows of {}; an instance is judged once it is {} old{baseline}.",
        duration_text(rules.observe.interval),
        duration_text(rules.observe.window),
        duration_text(rules.observe.warmup),
    )
}

/// What the shares of the rules by evidence come to.
fn chance(rules: &RuleSet) -> String {
    let mut clauses = rules.rules.iter().flat_map(|rule| rule.when.clauses());
    match clauses.any(|clause| clause.test.is_evidence()) {
        true => format!(
            "Rules by evidence share a chance of {} that a healthy release makes one of them fire.",
            percent(rules.false_rollback_rate)
        ),
        false => String::new(),
    }
}

/// A share in percent, with two digits that count.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = (1 - percent.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{percent:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

fn promotion(rules: &RuleSet) -> String {
    let otherwise = match rules.promote.otherwise {
        Otherwise::Hold => "is held",
        Otherwise::Rollback => "is rolled back",
        Otherwise::Promote => "is promoted all the same",
    };
    let proof = rules.signals.iter().any(|signal| signal.margin.is_some());
    format!(
        "Promotes after {} at the earliest{}{}. Without enough data{} it {otherwise} at {}.",
        duration_text(rules.promote.after),
        steps(rules),
        margins(rules),
        if proof { " or proof" } else { "" },
        duration_text(rules.promote.deadline),
    )
}

fn compared(baseline: Baseline) -> String {
    match baseline {
        Baseline::Concurrent => "compared with the version beside it".to_owned(),
        Baseline::Before => "compared with the time before the release".to_owned(),
        Baseline::Offset(offset) => format!("compared with {} ago", duration_text(offset)),
    }
}

/// By what a rule is decided, and when it is awake.
fn decided_by(rules: &RuleSet, rule: &Rule) -> String {
    let mut ways: Vec<String> = Vec::new();
    let clauses = rule.when.clauses();
    let evidence = clauses.iter().filter(|clause| clause.test.is_evidence()).count();
    if evidence > 0 {
        ways.push(format!("evidence at {}", percent(rules.alpha(rule) * evidence as f64)));
    }
    let looks = |hold: Duration| format!("every look for {}", duration_text(hold));
    for clause in clauses {
        let way = match clause.test {
            Test::Dwell { hold, .. } | Test::HealthLatency { hold, .. } => looks(hold),
            Test::HealthIs { hold: HealthHold::For(hold), .. } => looks(hold),
            Test::HealthIs { hold: HealthHold::Checks(1), .. } => "one check".to_owned(),
            Test::HealthIs { hold: HealthHold::Checks(checks), .. } => {
                format!("{checks} checks in a row")
            }
            Test::Counted { .. } => "a count".to_owned(),
            Test::BeyondConstant { .. } | Test::BeyondBaseline { .. } | Test::Slope { .. } => {
                continue;
            }
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let mut text = ways.join("; ");
    if let Some(after) = rule.after.filter(|after| !after.is_zero()) {
        text += &format!("; from {} on", duration_text(after));
    }
    if let Some(until) = rule.until {
        text += &format!("; until {}", duration_text(until));
    }
    text
}

fn reads_text(signal: &Signal, reads: &Reads) -> String {
    let text = match reads {
        Reads::Ratio { events, total } => {
            format!("share: {} / {}", selection(events), selection(total))
        }
        Reads::Counter(of) => match unit_word(signal.unit) {
            "per_second" => format!("rate of {}", selection(of)),
            _ => format!("count of {}", selection(of)),
        },
        Reads::Histogram { of, q } => format!("{q} quantile of {}", selection(of)),
        Reads::Gauge { of, per, reduce } => {
            let per = per.as_ref().map(|per| format!(" / {}", selection(per)));
            let of = selection(of) + &per.unwrap_or_default();
            match reduce {
                Reduce::Max => format!("level of {of}"),
                Reduce::Min => format!("smallest {of}"),
                Reduce::Mean => format!("mean {of}"),
                Reduce::Sum => format!("sum of {of}"),
            }
        }
        Reads::Health(HealthTarget::Path(path)) => format!("{path} of every instance"),
        Reads::Health(HealthTarget::Url(url)) => url.clone(),
        Reads::Answer { of: HealthTarget::Path(target) | HealthTarget::Url(target), .. } => {
            format!("a number that {target} answers")
        }
        Reads::Up => "share of instances that answer".to_owned(),
        Reads::Restarts(of) => format!("restarts by {}", selection(of)),
        Reads::Promql(text) => {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("PromQL, of a metrics server only: {text}")
        }
    };
    if signal.optional { format!("{text}; optional") } else { text }
}

/// The first alternative, and how many there are beside it.
fn selection(of: &Selection) -> String {
    let Some((first, others)) = of.any_of.split_first() else { return String::new() };
    match others.len() {
        0 => selector(first),
        more => format!("{} (or {more} more)", selector(first)),
    }
}

fn selector(selector: &Selector) -> String {
    let matchers: Vec<String> = selector
        .matchers
        .iter()
        .map(|matcher| {
            let (sign, value) = match &matcher.test {
                MatchTest::Equal(value) => ("=", value),
                MatchTest::NotEqual(value) => ("!=", value),
                MatchTest::Regex(value, _) => ("=~", value),
                MatchTest::NotRegex(value, _) => ("!~", value),
            };
            format!("{}{sign}\"{value}\"", matcher.label)
        })
        .collect();
    match matchers.is_empty() {
        true => selector.name.clone(),
        false => format!("{}{{{}}}", selector.name, matchers.join(",")),
    }
}

/// The steps of a progressive release.
fn steps(rules: &RuleSet) -> String {
    if rules.steps.is_empty() {
        return String::new();
    }
    let step = |step: &ReleaseStep| {
        format!("{} for {}", quantity(step.weight, "share"), duration_text(step.hold))
    };
    let told: Vec<String> = rules.steps.iter().map(step).collect();
    format!(", in {} ({})", plural(told.len(), "step"), told.join(", "))
}

/// What has to be shown before a promotion.
fn margins(rules: &RuleSet) -> String {
    let told = rules.signals.iter().filter_map(|signal| {
        let margin = signal.margin?;
        Some(format!("{} is shown within {}", signal.name, margin_words(signal, margin)))
    });
    let told: Vec<String> = told.collect();
    match told.is_empty() {
        true => String::new(),
        false => format!(" once {}", told.join(" and ")),
    }
}

fn margin_words(signal: &Signal, margin: Margin) -> String {
    let factor = quantity(margin.factor, "number");
    let or = margin.or.map(|or| format!(" or {}", quantity(or, unit_word(signal.unit))));
    format!("{factor}x{}", or.unwrap_or_default())
}

/// `1 fault`, `2 faults`.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
