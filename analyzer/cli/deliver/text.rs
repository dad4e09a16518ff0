//! Rehearsed and tested deliveries for people.

use super::shape::{Deliveries, Delivery, Outcome, Request};
use crate::cli::display::line::{Line, Tone};

/// Everything, a mechanism after the other.
pub fn whole(deliveries: &Deliveries, color: bool) -> String {
    let lines = deliveries.deliveries.iter().flat_map(delivery);
    lines.map(|line| line.render(color) + "\n").collect()
}

fn delivery(delivery: &Delivery) -> Vec<Line> {
    let Delivery { mechanism, kind, action, does, requests, outcome } = delivery;
    let does = does.as_deref().unwrap_or("nothing");
    let head = Line::of(mechanism.as_str(), Tone::Strong)
        .and(format!("  {kind}"), Tone::Dim)
        .and(format!("  on {action}: {does}"), Tone::Plain);
    let mut lines = vec![head];
    lines.extend(requests.iter().flat_map(request));
    lines.push(came_of(outcome));
    lines.push(Line::default());
    lines
}

fn request(request: &Request) -> Vec<Line> {
    let mark = if request.is_write() { "" } else { "  (really asked)" };
    let head = format!("  {} {}", request.method, request.url);
    let mut lines = vec![Line::of(head, Tone::Plain).and(mark, Tone::Info)];
    let headers = request.headers.iter();
    lines.extend(headers.map(|(name, value)| Line::of(format!("    {name}: {value}"), Tone::Dim)));
    if let Some(body) = &request.body {
        lines.push(Line::default());
        lines.extend(body.lines().map(|line| Line::of(format!("    {line}"), Tone::Plain)));
        lines.push(Line::default());
    }
    if let Some(answer) = &request.answer {
        lines.push(Line::of(format!("    answered {answer}"), Tone::Plain));
    }
    lines
}

fn came_of(outcome: &Outcome) -> Line {
    let (tone, words) = match outcome {
        Outcome::WouldBeSent => (Tone::Good, "✓ would be sent".to_owned()),
        Outcome::WouldBeRefused { answer } => (Tone::Bad, format!("✗ would be refused: {answer}")),
        Outcome::Nothing => (Tone::Plain, "- nothing would be sent".to_owned()),
        Outcome::Delivered { answer } => (Tone::Good, format!("✓ delivered: {answer}")),
        Outcome::Refused { answer } => (Tone::Bad, format!("✗ refused: {answer}")),
        Outcome::OnlyRead { answer: None } => {
            (Tone::Plain, "- no test event: it could be taken for a decision".to_owned())
        }
        Outcome::OnlyRead { answer: Some(answer) } => (
            Tone::Warn,
            format!(
                "- no test event: it could be taken for a decision, which would be refused: {answer}"
            ),
        ),
        Outcome::Failed { answer } => (Tone::Bad, format!("✗ failed: {answer}")),
    };
    Line::of(format!("  {words}"), tone)
}
