//! What a rule asks of a health answer, as a signal of its own.
//!
//! `field(app, active_connections)` and `latency(app)` need no entry under `signals:`. Each distinct
//! one becomes a level beside the named signals, called as it is written, so that whatever can be
//! asked of a level can be asked of it: limits, the baseline, slopes, `for` and evidence. Only an
//! answer time that is beyond a constant *for* some time stays with the health signal, whose readings
//! carry it.
//!
//! Of several instances the worst one counts: the largest where a rule asks for more than its bound,
//! the smallest where it asks for less.

use super::{
    condition::{Ask, Bound, Clause, Value},
    fault::Complaint,
    signals::{Answer, Known, MAX_SIGNALS, Scale, Signals},
};
use crate::{
    engine::rule::{Better, Op, SignalKind},
    signal::{
        answer::AnswerNumber,
        spec::{Reads, Reduce, SignalSpec},
    },
};

/// The signal that a clause asks `number` of: an implicit one, or the health signal itself. None
/// when that is faulty, which has been said at its own place.
///
/// # Errors
/// When what is named is no health signal, or the file has too many signals.
pub(super) fn index_of(
    signals: &mut Signals,
    named: usize,
    number: &AnswerNumber,
    clause: &Clause,
) -> Result<Option<usize>, Complaint> {
    let known = &signals.known[named];
    match known.meaning {
        None => return Ok(None),
        Some((SignalKind::Health, _)) => {}
        Some((
            SignalKind::Ratio { .. }
            | SignalKind::Rate
            | SignalKind::Count
            | SignalKind::Quantile { .. }
            | SignalKind::Gauge { .. }
            | SignalKind::Restarts,
            _,
        )) => {
            let example = match number {
                AnswerNumber::Latency => "latency(...)",
                AnswerNumber::Field(_) => "field(..., path)",
            };
            return Err(Complaint::new(
                clause.signal_span.clone(),
                format!("`{}` is not a health signal", known.name),
                format!("a health signal inside `{example}`"),
            ));
        }
    }
    let Some(of) = known.health.clone() else { return Ok(None) };
    let (value, reduce) = match &clause.ask {
        Ask::Compare { bound: Bound::Constant(_), .. }
            if *number == AnswerNumber::Latency
                && clause.value == Value::Itself
                && clause.hold.is_some() =>
        {
            return Ok(Some(named));
        }
        Ask::Compare { op: Op::Above | Op::AtLeast, .. } | Ask::Is { .. } => {
            (clause.value, Reduce::Max)
        }
        Ask::Compare { op: Op::Below | Op::AtMost, .. } => (clause.value, Reduce::Min),
    };
    let (written, scale) = match number {
        AnswerNumber::Latency => {
            (format!("latency({})", known.name), Scale::Time { unit_secs: 1.0 })
        }
        AnswerNumber::Field(path) => {
            let scale = path.last_name().map_or(Scale::Plain, scale_of);
            (format!("field({}, {path})", known.name), scale)
        }
    };
    let is_same = |answer: &&Answer| answer.written == written;
    // A slope is taken instance by instance, however they are made one.
    let fits = |answer: &&Answer| answer.reduce == reduce || value == Value::Slope;
    let mut same = signals.answers.iter().filter(is_same);
    if let Some(answer) = same.clone().find(fits) {
        return Ok(Some(answer.index));
    }
    let name = match (same.next(), reduce) {
        (None, _) => written.clone(),
        (Some(_), Reduce::Min) => format!("least {written}"),
        (Some(_), Reduce::Max | Reduce::Mean | Reduce::Sum) => format!("greatest {written}"),
    };
    let index = signals.known.len();
    if index >= MAX_SIGNALS {
        return Err(Complaint::new(
            clause.span.clone(),
            "one signal too many",
            format!("at most {MAX_SIGNALS} signals, each number of a health answer among them"),
        ));
    }
    let better = match reduce {
        Reduce::Min => Better::Higher,
        Reduce::Max | Reduce::Mean | Reduce::Sum => Better::Lower,
    };
    let meaning = Some((SignalKind::Gauge { limit: None }, scale));
    signals.known.push(Known {
        name: name.clone(),
        meaning,
        better,
        optional: false,
        health: None,
    });
    let reads = Reads::Answer { of, number: number.clone(), reduce };
    signals.specs.push(SignalSpec { name, reads });
    signals.answers.push(Answer { written, reduce, index });
    Ok(Some(index))
}

/// The unit that the last word of a name says: `responseTimeMs`, `latency_ms` and `latency-ms` are
/// in milliseconds.
fn scale_of(name: &str) -> Scale {
    let start = name.char_indices().rev().find_map(|(at, c)| {
        if matches!(c, '_' | '-' | ' ' | '.') {
            return Some(at + c.len_utf8());
        }
        let after_small = name[..at].ends_with(|before: char| before.is_lowercase());
        (c.is_uppercase() && after_small).then_some(at)
    });
    match name[start.unwrap_or(0)..].to_lowercase().as_str() {
        "ms" | "millis" | "milliseconds" => Scale::Time { unit_secs: 0.001 },
        "s" | "sec" | "secs" | "seconds" => Scale::Time { unit_secs: 1.0 },
        "bytes" => Scale::Bytes,
        _ => Scale::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_name_says_its_unit() {
        let check = |name: &str, expected: Scale| assert_eq!(scale_of(name), expected, "{name}");
        let (ms, secs) = (Scale::Time { unit_secs: 0.001 }, Scale::Time { unit_secs: 1.0 });
        check("latency_ms", ms);
        check("responseTimeMs", ms);
        check("query-millis", ms);
        check("uptime_seconds", secs);
        check("uptimeSecs", secs);
        check("age_s", secs);
        check("used_bytes", Scale::Bytes);
        check("heapBytes", Scale::Bytes);
        check("bytes", Scale::Bytes);
        check("used_percent", Scale::Plain);
        check("items", Scale::Plain);
        check("ITEMS", Scale::Plain);
        check("größeMs", ms);
        check("ÄMs", Scale::Plain);
        check("", Scale::Plain);
    }
}
