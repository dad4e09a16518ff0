//! What a good configuration holds: where it listens, and what each mechanism does on which decision.

use super::{
    config::Picture,
    summary::{CELL_LINES_MAX, matrix, plural},
};
use crate::{
    cli::display::line::{Line, Tone, clean, left, wrap},
    deliver::Checks,
};

/// What a configuration holds, as a table at most `columns` wide.
pub fn table(name: &str, picture: &Picture, columns: usize) -> Vec<Line> {
    let config = &picture.config;
    let mut lines = vec![
        Line::of(clean(name), Tone::Strong)
            .and("  good", Tone::Good)
            .and(": a configuration", Tone::Plain),
        Line::default(),
    ];
    let (good, all) = picture.rule_files;
    let loaded = if good == all { "".to_owned() } else { format!(", of which {good} load") };
    let rules = format!("{}: {}{loaded}", config.rules.display(), plural(all, "rule file"));
    let servers: Vec<String> = config.prometheus.keys().cloned().collect();
    let watched: Vec<String> =
        config.watch.iter().map(|watch| format!("{} ({})", watch.service, watch.rules)).collect();
    let facts = [
        ("listens on", config.listen.to_string()),
        ("store", config.store.display().to_string()),
        ("rules", rules),
        ("prometheus", servers.join(", ")),
        ("watches", watched.join(", ")),
    ];
    let room = columns.saturating_sub(14).max(20);
    for (what, said) in facts.iter().filter(|(_, said)| !said.is_empty()) {
        let mut what = *what;
        for part in wrap(&clean(said), room, CELL_LINES_MAX) {
            let line = Line::of(format!("  {}", left(what, 10)), Tone::Dim);
            lines.push(line.and(format!("  {part}"), Tone::Plain));
            what = "";
        }
    }
    if picture.mechanisms.is_empty() {
        lines.push(Line::default());
        lines.push(Line::of("  Nobody is told: there are no mechanisms.", Tone::Plain));
        return lines;
    }
    lines.push(Line::default());
    let rows = picture.mechanisms.iter().flat_map(|drawn| {
        let about = &drawn.about;
        let checks = match &about.checks {
            Checks::Nobody => "checks nothing".to_owned(),
            Checks::Receiver => "the receiver checks".to_owned(),
            Checks::People => "people are told".to_owned(),
            Checks::Itself(what) => format!("checks {what}"),
        };
        let facts = [drawn.name.clone(), about.kind.to_owned(), about.to.clone(), checks];
        drawn.does.iter().zip(facts).map(|((action, does), fact)| {
            let does = does.as_deref().unwrap_or("nothing");
            [clean(&fact), action.to_string(), clean(does)]
        })
    });
    lines.extend(matrix(["mechanism", "on", "does"], rows.collect(), columns));
    lines
}

/// What a configuration holds, in one sentence.
pub fn sentence(picture: &Picture) -> String {
    let mechanisms: Vec<String> = picture
        .mechanisms
        .iter()
        .map(|drawn| format!("{} ({})", drawn.name, drawn.about.kind))
        .collect();
    let told = match mechanisms.is_empty() {
        true => "nobody is told".to_owned(),
        false => format!("tells {}", mechanisms.join(", ")),
    };
    let (good, all) = picture.rule_files;
    format!(
        "good: a configuration that listens on {}, {good} of {} loaded, {told}",
        picture.config.listen,
        plural(all, "rule file"),
    )
}
