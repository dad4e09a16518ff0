//! Which literals fit which signal: a latency is not held against 5 %, nor memory against 2 s.
//!
//! A literal that fits becomes a number in the signal's own unit; of one that does not, it is said
//! what was found, what was expected, and where there is a usual slip, what was meant.

use std::ops::Range;

use super::{
    fault::Complaint,
    literal::{self, Dimension, Literal},
    signals::Scale,
};
use crate::engine::rule::SignalKind;

/// A signal, as far as its unit goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units<'c> {
    /// Its name.
    pub(super) name: &'c str,
    /// What it is.
    pub(super) kind: SignalKind,
    /// In which unit its numbers are.
    pub(super) scale: Scale,
}

impl Units<'_> {
    /// The literal as a number in the signal's own unit.
    pub(super) fn in_unit(&self, literal: Literal, span: &Range<usize>) -> Result<f64, Complaint> {
        let Literal { value, dimension } = literal;
        let name = self.name;
        let fit = match (self.scale, dimension) {
            (Scale::Share | Scale::Instances, Dimension::Share | Dimension::Plain)
                if value.abs() > 1.0 && self.is_bounded() =>
            {
                let message = format!("`{name}` is a share, never above 100%");
                let percent = dimension == Dimension::Plain && value.abs() <= 100.0;
                let hint = match self.scale {
                    Scale::Instances => {
                        Some(format!("`{name} < 100%`: fewer than all instances are up"))
                    }
                    _ => percent.then(|| format!("did you mean `{value}%`?")),
                };
                return Err(self.unit(span, message).hint_if(hint));
            }
            (Scale::Share | Scale::Instances, Dimension::Share | Dimension::Plain) => true,
            (Scale::PerSecond, Dimension::PerSecond) => true,
            (Scale::Count | Scale::Plain, Dimension::Plain) => true,
            (Scale::Time { unit_secs }, Dimension::Time) => return Ok(value / unit_secs),
            (Scale::Bytes, Dimension::Bytes) => true,
            (Scale::PlainOrBytes, Dimension::Plain | Dimension::Bytes) => true,
            (
                Scale::Any,
                Dimension::Plain
                | Dimension::Share
                | Dimension::Time
                | Dimension::Bytes
                | Dimension::PerSecond
                | Dimension::BytesPerSecond
                | Dimension::SharePerSecond
                | Dimension::TimePerSecond,
            ) => true,
            _ => false,
        };
        if fit {
            return Ok(value);
        }
        let complaint = self.unit(span, format!("`{name}` is held against {}", words(dimension)));
        Err(complaint.hint_if(self.unit_hint(dimension, literal::short(value))))
    }

    /// Whether its numbers lie between 0 and 1, whatever happens.
    pub(super) fn is_bounded(&self) -> bool {
        matches!(self.kind, SignalKind::Ratio { .. }) || self.scale == Scale::Instances
    }

    /// The literal as a change of the signal in a second, in its own unit.
    pub(super) fn in_unit_per_second(
        &self,
        literal: Literal,
        span: &Range<usize>,
    ) -> Result<f64, Complaint> {
        let Literal { value, dimension } = literal;
        let fit = match (self.scale, dimension) {
            (Scale::Time { unit_secs }, Dimension::TimePerSecond) => return Ok(value / unit_secs),
            (Scale::Share, Dimension::SharePerSecond | Dimension::PerSecond) => true,
            (Scale::Bytes, Dimension::BytesPerSecond) => true,
            (Scale::Plain | Scale::Count, Dimension::PerSecond) => true,
            (Scale::PlainOrBytes, Dimension::PerSecond | Dimension::BytesPerSecond) => true,
            (
                Scale::Any,
                Dimension::PerSecond
                | Dimension::BytesPerSecond
                | Dimension::SharePerSecond
                | Dimension::TimePerSecond,
            ) => true,
            _ => false,
        };
        if fit {
            return Ok(value);
        }
        let timeless = match dimension {
            Dimension::Plain | Dimension::Share | Dimension::Time | Dimension::Bytes => true,
            Dimension::PerSecond
            | Dimension::BytesPerSecond
            | Dimension::SharePerSecond
            | Dimension::TimePerSecond
            | Dimension::Factor => false,
        };
        let hint =
            timeless.then(|| "a slope is a change in a time: `/s`, `/min` or `/h`".to_owned());
        Err(Complaint::new(
            span.clone(),
            format!("the slope of `{}` is held against {}", self.name, words(dimension)),
            format!("{} over time, such as `{}/min`", self.unit_words(), self.literal()),
        )
        .hint_if(hint))
    }

    fn unit(&self, span: &Range<usize>, message: String) -> Complaint {
        let expected = format!("{}, such as `{}`", self.unit_words(), self.literal());
        Complaint::new(span.clone(), message, expected)
    }

    fn unit_hint(&self, found: Dimension, value: f64) -> Option<String> {
        let plain = found == Dimension::Plain;
        match self.scale {
            Scale::Time { .. } if plain => {
                Some(format!("{value} what? write `{value}s` or `{value}ms`"))
            }
            Scale::Bytes if plain => {
                Some(format!("write `{value}B`, or the amount in KB, MB, GB, KiB, MiB or GiB"))
            }
            Scale::Bytes if found == Dimension::Share => {
                Some("for a share, define a signal `gauge: 'IN_USE / LIMIT'`".to_owned())
            }
            Scale::PerSecond if plain => {
                Some(format!("a rate has a time: write `{value}/s` or `{value}/min`"))
            }
            Scale::Plain if found == Dimension::Share => {
                let percent = literal::short(value * 100.0);
                Some(format!("write `{percent}` of a number in percent, `{value}` of a share"))
            }
            Scale::Plain if found == Dimension::Bytes || found == Dimension::Time => Some(
                "the unit is read off the name (`_bytes`, `_seconds`), and this one has none"
                    .to_owned(),
            ),
            Scale::Count if found == Dimension::PerSecond => {
                Some("for a pace, define a `rate:` signal of the same counter".to_owned())
            }
            Scale::Share
            | Scale::Instances
            | Scale::PerSecond
            | Scale::Count
            | Scale::Time { .. }
            | Scale::Bytes
            | Scale::Plain
            | Scale::PlainOrBytes
            | Scale::Any
            | Scale::Health => None,
        }
    }

    fn unit_words(&self) -> &'static str {
        match self.scale {
            Scale::Share | Scale::Instances => "a percentage",
            Scale::PerSecond => "a rate",
            Scale::Count => "a whole number",
            Scale::Time { .. } => "a time",
            Scale::Bytes => "an amount of bytes",
            Scale::Plain => "a plain number",
            Scale::PlainOrBytes => "a plain number or an amount of bytes",
            Scale::Any => "a number",
            Scale::Health => "a status",
        }
    }

    pub(super) fn literal(&self) -> &'static str {
        match self.scale {
            Scale::Share => "5%",
            Scale::Instances => "100%",
            Scale::PerSecond => "10/s",
            Scale::Count => "1",
            Scale::Time { .. } => "200ms",
            Scale::Bytes => "500MB",
            Scale::Plain | Scale::PlainOrBytes | Scale::Any => "100",
            Scale::Health => "down",
        }
    }

    /// A comparison that would be right for this signal.
    pub(super) fn example(&self) -> String {
        match self.kind {
            SignalKind::Count | SignalKind::Restarts => ">= 1".to_owned(),
            SignalKind::Health => "is down".to_owned(),
            SignalKind::Gauge { .. } if self.scale == Scale::Instances => "< 100%".to_owned(),
            SignalKind::Ratio { .. }
            | SignalKind::Rate
            | SignalKind::Quantile { .. }
            | SignalKind::Gauge { .. } => format!("> {}", self.literal()),
        }
    }
}

/// What a literal is, in words.
fn words(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Plain => "a number without a unit",
        Dimension::Share => "a percentage",
        Dimension::Time => "a time",
        Dimension::Bytes => "an amount of bytes",
        Dimension::PerSecond => "a rate",
        Dimension::BytesPerSecond => "bytes over time",
        Dimension::SharePerSecond => "a percentage over time",
        Dimension::TimePerSecond => "a time over time",
        Dimension::Factor => "a multiple",
    }
}
