//! Under the matrix: what promotion asks to be shown, and how far each proof is.

use super::{
    line::{Line, Tone, clean, left, wrap},
    matrix::{INDENT, MARGIN, STATE, WIDTH_MAX, WIDTH_MIN},
};
use crate::report::{proofs, shape::Report};

/// Lines that one proof may take.
const PROOF_LINES_MAX: usize = 2;

/// A head and a line for each signal that has to be shown; nothing where none has.
pub fn lines(report: &Report, columns: usize) -> Vec<Line> {
    let width = columns.clamp(WIDTH_MIN, WIDTH_MAX);
    let margin = " ".repeat(MARGIN);
    let mut lines = Vec::new();
    for signal in &report.signals {
        let (Some(proof), Some((what, far))) = (&signal.proof, proofs::line(signal)) else {
            continue;
        };
        let (mark, tone) =
            if proof.shown { ("✓ shown", Tone::Good) } else { ("○ open", Tone::Warn) };
        let text = if proof.shown { what } else { format!("{what}: {far}") };
        for (place, part) in wrap(&clean(&text), width - INDENT, PROOF_LINES_MAX).iter().enumerate()
        {
            let mark = if place == 0 { mark } else { "" };
            let lead = Line::of(margin.clone(), Tone::Plain).and(left(mark, STATE) + "  ", tone);
            lines.push(lead.and(part.clone(), Tone::Plain));
        }
    }
    if !lines.is_empty() {
        let head = format!("{margin}{}  promotion asks for", left("proof", STATE));
        lines.insert(0, Line::of(head, Tone::Dim));
    }
    lines
}
