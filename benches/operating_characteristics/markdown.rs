//! The page, in Markdown.

use std::fmt;

use crate::{
    recordings::{INTERVALS, Recorded},
    requirements::{Delays, Requirement, Standing, share},
    rows::{FaultRow, Known, Row},
    runs::{Outcome, Plan},
};

/// Everything the page says.
pub struct Page {
    pub plan: Plan,
    pub healthy: Vec<Outcome<Row>>,
    pub faulty: Vec<Outcome<FaultRow>>,
    pub recordings: Vec<Recorded>,
    pub requirements: Vec<Requirement>,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.required(f)?;
        self.healthy(f)?;
        self.faulty(f)?;
        self.peers(f)?;
        self.recordings(f)
    }
}

impl Page {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, false_runs, found_runs, peer_runs, .. } = self.plan;
        writeln!(
            f,
            "# Operating characteristics

Seed {seed}. `make characteristics` writes this page anew; `ROLLGATE_SEED={seed} cargo bench --bench
operating_characteristics` repeats it to the last digit on any machine, since every figure is a
count of simulated releases and no clock is read. `ROLLGATE_RUNS=200` prints a short version.

What is measured is what ships: simulated observations go through the whole analysis, look by look,
until its verdict. A rule file has one evidence rule, `errors > 1.25x baseline` (floor 0.1 %) or
`p95 > 1.2x baseline`, and the default false-rollback rate of 0.1 %, an interval of 1 s and a
warm-up of 1 min. Unless a row says \"no history\", noise is measured before each run on an hour of
the old version, looked at every 15 s; with no history the stated prior is used. An arm has 100
requests/s (Poisson) and 0.5 % failures, latencies are log-normal (median 50 ms, deviation 0.6) in
the default buckets, unless the row says otherwise. \"AR s / t\" is noise in each arm by itself: the
logarithm of the failure rate, or of the latency level, is an AR(1) process of deviation s and
correlation time t.

Rates are over {false_runs} runs of 15 min, delays over {found_runs} runs that go on for an hour
after the onset, the peers over the first {peer_runs} of either, an hour each. Intervals are 95 %
(Clopper and Pearson).
"
        )?;
        if self.plan.is_short {
            writeln!(
                f,
                "**A short run, by `ROLLGATE_RUNS={false_runs}`**: intervals are wide, and figures rough.\n"
            )?;
        }
        Ok(())
    }

    fn required(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Required and reached\n")?;
        writeln!(f, "| figure | required | reached | verdict |\n|---|---|---|---|")?;
        for Requirement { figure, required, reached, standing } in &self.requirements {
            let verdict = match standing {
                Standing::Reached => "reached".to_owned(),
                Standing::Missed { why: Some(why) } => format!("**not reached**: {why}"),
                Standing::Missed { why: None } => "**not reached**".to_owned(),
            };
            writeln!(f, "| {figure} | {required} | {reached} | {verdict} |")?;
        }
        writeln!(
            f,
            "
The cost of an evidence step and of a look depends on the machine: `cargo bench --bench engine`
measures and asserts it.
"
        )
    }

    fn healthy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## Healthy releases rolled back

Both arms are alike, save where the row says that the canary stands exactly at what the rule
allows. A canary whose first minute is bad and then heals is not a bad version; that is what the
warm-up is for, which keeps the minute out. Without a warm-up the canary *is* worse for a minute, and
rolling it back is right (next table).

| scenario | noise known from | rolled back |
|---|---|---|"
        )?;
        for outcome in &self.healthy {
            let known = match outcome.row.known {
                Known::Hour => "1 h of history",
                Known::Nothing => "nothing: the prior",
            };
            let count = outcome.ours.iter().flatten().count();
            let rolled_back = share(count, outcome.ours.len());
            writeln!(f, "| {} | {known} | {rolled_back} |", outcome.row.name)?;
        }
        writeln!(f)
    }

    fn faulty(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## Faults found

The delay is counted from the onset to the look that rolls back; a run in which the fault is not
found within an hour counts as infinite. The bound is Wald's, `ln(1/alpha) / KL`, for independent
requests: KL is the information a second against the margin's null, in the conditional two-arm form
(given all events, which arm does each fall to), the smaller one of margin and floor; of latencies
at the best single bucket edge. A verdict falls at a look, so the ratio is to the bound in whole
looks of 1 s. Under noise nobody reaches it: noise of 0.5 / 30 s leaves about two independent draws
a minute.

| scenario | found within 1 h | before the onset | median | 95th percentile | bound | median / bound |
|---|---|---|---|---|---|---|"
        )?;
        for outcome in &self.faulty {
            let delays = Delays::of(outcome);
            let found = share(delays.found, delays.runs - delays.early);
            let bound =
                outcome.row.bound_secs.map_or("-".to_owned(), |bound| format!("{bound:.1} s"));
            let ratio = delays.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            writeln!(
                f,
                "| {} | {found} | {} | {} | {} | {bound} | {ratio} |",
                outcome.row.row.name,
                delays.early,
                secs(delays.median_secs),
                secs(delays.p95_secs),
            )?;
        }
        writeln!(f)
    }

    fn peers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## Two other styles on the same releases

*Threshold*, as canary controllers do it: the error share (or 95th percentile) of the last minute
against a fixed limit, twice the baseline's long-run value, one look a minute, rollback when more
than 3 looks have failed in all. *Judge*, as canary analysers do it: a Mann-Whitney test (98 %
interval of the shift, continuity and tie correction, beyond a quarter of the estimate) on all
one-minute values of both arms so far, one judgement every 10 min. Both watch for an hour, and see the
same requests as ours did, from the same seeds.

| healthy release | ours, 15 min | threshold, 1 h | judge, 1 h |
|---|---|---|---|"
        )?;
        for outcome in &self.healthy {
            let Some([threshold, judge]) = &outcome.peers else { continue };
            let all = |found: &[Option<f64>]| share(found.iter().flatten().count(), found.len());
            let ours = all(&outcome.ours[..threshold.len()]);
            let (threshold, judge) = (all(threshold), all(judge));
            writeln!(f, "| {} | {ours} | {threshold} | {judge} |", outcome.row.name)?;
        }
        writeln!(
            f,
            "
Found within the hour, with the median delay; in brackets the share rolled back before the onset.

| fault | ours | threshold | judge |\n|---|---|---|---|"
        )?;
        for outcome in &self.faulty {
            let Some([threshold, judge]) = &outcome.peers else { continue };
            let say = |found: &[Option<f64>]| {
                let delays = Delays::from(found, outcome.row.onset_secs);
                let of = |count: usize| 100.0 * count as f64 / delays.runs as f64;
                let (found, early) = (of(delays.found), of(delays.early));
                format!("{found:.0} % after {} ({early:.0} %)", secs(delays.median_secs))
            };
            let ours = say(&outcome.ours[..threshold.len()]);
            let (threshold, judge) = (say(threshold), say(judge));
            writeln!(f, "| {} | {ours} | {threshold} | {judge} |", outcome.row.row.name)?;
        }
        writeln!(f)
    }

    fn recordings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## Recordings of real services

Each directory under `tests/cases/recordings`, judged by `rules/recommended.yaml` with a hold of
2 min, as `rollgate replay` does; about 60 requests/s of the baseline and 20 of the canary, without
history. Seconds are from the onset that the services reported to the rollback.

| recording | what happens | expected | {} |\n|---|---|---|---|---|",
            INTERVALS.map(|secs| format!("looks of {secs} s")).join(" | ")
        )?;
        for recorded in &self.recordings {
            let said =
                recorded.judged.iter().map(|judged| match (&judged.rule, judged.delay_secs) {
                    (Some(rule), Some(secs)) => {
                        format!("{} after {secs:.1} s by `{rule}`", judged.verdict)
                    }
                    _ => judged.verdict.clone(),
                });
            let expected = recorded.expected.replace('_', " ");
            let said = said.collect::<Vec<_>>().join(" | ");
            writeln!(f, "| {} | {} | {expected} | {said} |", recorded.name, recorded.what)?;
        }
        Ok(())
    }
}

fn secs(secs: f64) -> String {
    if secs.is_finite() { format!("{secs:.0} s") } else { "never".to_owned() }
}
