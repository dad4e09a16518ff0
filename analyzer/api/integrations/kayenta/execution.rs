//! The id of an execution: the analysis, and what its answers depend on beside it.
//!
//! The thresholds come with the request that begins an execution and are needed for every answer
//! about it. They are part of the id, so that they are kept by whoever asks, through any restart.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Scores that divide pass, marginal and fail, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ScoreThresholds)]
pub(super) struct Thresholds {
    /// From here on it passes.
    pub(super) pass: f64,
    /// From here on it is marginal.
    pub(super) marginal: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { pass: 95.0, marginal: 75.0 }
    }
}

impl Thresholds {
    /// What is wrong with them. There has to be room for all three: a rollback scores 0, and what is
    /// inconclusive must not pass.
    pub(super) fn faults(self) -> Vec<String> {
        let Self { pass, marginal } = self;
        if 0.0 < marginal && marginal < pass && pass <= 100.0 {
            return Vec::new();
        }
        vec![format!(
            "thresholds: pass {pass} and marginal {marginal} found, expected marginal above 0, pass \
             above marginal and at most 100: a rollback scores 0, inconclusive the marginal \
             threshold, a promotion 100"
        )]
    }
}

/// One execution.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Execution {
    /// Id of the analysis.
    pub(super) analysis: String,
    /// What its verdict is scored by.
    pub(super) thresholds: Thresholds,
    /// Metrics of an inline configuration that are not read.
    pub(super) unread: usize,
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Thresholds { pass, marginal } = self.thresholds;
        write!(f, "{}_{pass}_{marginal}_{}", self.analysis, self.unread)
    }
}

impl Execution {
    /// Reads an id. The bare id of an analysis is one too, with the usual thresholds.
    pub(super) fn parse(id: &str) -> Self {
        let mut parts = id.rsplitn(4, '_');
        let mut part = || parts.next().unwrap_or_default();
        let (unread, marginal, pass, analysis) = (part(), part(), part(), part());
        let thresholds = pass.parse().ok().zip(marginal.parse().ok());
        let thresholds = thresholds
            .map(|(pass, marginal)| Thresholds { pass, marginal })
            .filter(|thresholds| thresholds.faults().is_empty());
        match (thresholds, unread.parse()) {
            (Some(thresholds), Ok(unread)) if !analysis.is_empty() => {
                Self { analysis: analysis.to_owned(), thresholds, unread }
            }
            _ => Self { analysis: id.to_owned(), thresholds: Thresholds::default(), unread: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_thresholds() {
        let check = |id: &str, analysis: &str, pass: f64, marginal: f64, unread: usize| {
            let thresholds = Thresholds { pass, marginal };
            let expected = Execution { analysis: analysis.to_owned(), thresholds, unread };
            assert_eq!(Execution::parse(id), expected, "{id}");
        };
        let made = Execution {
            analysis: "0199".to_owned(),
            thresholds: Thresholds { pass: 90.5, marginal: 50.0 },
            unread: 3,
        };
        assert_eq!(made.to_string(), "0199_90.5_50_3");
        assert_eq!(Execution::parse(&made.to_string()), made);
        check("a_b_90_50_0", "a_b", 90.0, 50.0, 0);
        for bare in
            ["0199", "", "_", "0199_95", "0199_50_90_0", "0199_NaN_1_0", "_95_75_0", "a_1_2_x"]
        {
            check(bare, bare, 95.0, 75.0, 0);
        }
    }
}
