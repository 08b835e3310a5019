//! The search for the highest rate that keeps to an objective.

use std::time::Duration;

use parsec_bench::load::{Knee, MeasureOptions, Objectives, Tried};
use parsec_bench::record::{MedianRange, Probe, Repeat, Search};

use super::{Progress, Session};
use crate::failure::{Failure, failed};

/// A rate is kept only if this share of it commits.
const KEPT_MIN: f64 = 0.95;
/// How often a rate that was found may turn out to be too high when it is measured for longer.
const CONFIRMATIONS: u32 = 5;
/// What a rate that was found and is too high is multiplied by.
const LOWER: f64 = 0.9;

impl Session<'_> {
    /// Searches for the highest rate that keeps to the objective, and measures it. One that is too
    /// high when it is measured for longer is lowered.
    pub(super) async fn find(
        &self,
        progress: &mut Progress,
    ) -> Result<(f64, Vec<Repeat>, Search), Failure> {
        let objective = self.args.pace.slo.as_ref();
        let objective = objective.ok_or_else(|| failed("--rate find needs --slo"))?;
        let mut search = self.search(progress, objective).await?;
        let mut rate = search.found.ok_or_else(|| {
            let lowest = search.probes.iter().map(|probe| probe.rate).reduce(f64::min);
            failed(format!("not even {:.0}/s keeps to {objective}", lowest.unwrap_or_default()))
        })?;
        for _ in 0..CONFIRMATIONS {
            let repeats = self.measure(progress, self.open(rate, 0)).await?;
            let probe = judge(rate, objective, &repeats);
            self.say_probe(search.probes.len(), &probe);
            let kept = probe.kept;
            search.probes.push(probe);
            if kept {
                search.found = Some(rate);
                return Ok((rate, repeats, search));
            }
            rate *= LOWER;
        }
        Err(failed(format!(
            "no rate that kept to {objective} in a short probe did so in {} repeats of {} s",
            self.args.repeat, self.args.seconds
        )))
    }

    async fn search(
        &self,
        progress: &mut Progress,
        objective: &Objectives,
    ) -> Result<Search, Failure> {
        let mut knee = Knee::new(progress.rate / 2.0);
        let mut probes = Vec::new();
        while let Some(rate) = knee.next() {
            let probe = self.probe(progress, rate, objective, probes.len()).await?;
            self.say_probe(probes.len(), &probe);
            knee.tried(if probe.kept { Tried::Kept } else { Tried::Failed });
            probes.push(probe);
        }
        Ok(Search { objective: objective.to_string(), probes, found: knee.found() })
    }

    async fn probe(
        &self,
        progress: &mut Progress,
        rate: f64,
        objective: &Objectives,
        number: usize,
    ) -> Result<Probe, Failure> {
        let seed = u64::try_from(number).unwrap_or(u64::MAX).saturating_add(1_000);
        let seconds = Duration::from_secs(u64::from(self.args.seconds.div_ceil(3).clamp(2, 10)));
        let options = MeasureOptions {
            warm_up: Duration::from_secs(u64::from(self.args.warm_up.min(1))),
            seconds,
            ..self.options(self.open(rate, seed))
        };
        self.live.label(&format!("probing {rate:.0}/s"));
        let measured = self.measure_once(progress, &options, 1).await?;
        // What was in flight or waiting when it ended is not of the next probe.
        self.rest(progress).await?;
        Ok(judge(rate, objective, &[measured.repeat]))
    }

    fn say_probe(&self, number: usize, probe: &Probe) {
        self.live.say(&format!(
            "probe {}: {:.0}/s offered, {:.0}/s committed, p50 {:.2} ms, p99 {:.2} ms: {} ({})",
            number + 1,
            probe.rate,
            probe.tps,
            probe.p50_ms,
            probe.p99_ms,
            if probe.kept { "kept" } else { "not kept" },
            probe.reason
        ));
    }
}

/// Whether these measurements of a rate, by their medians, keep to the objective.
fn judge(rate: f64, objective: &Objectives, repeats: &[Repeat]) -> Probe {
    let median = |of: fn(&Repeat) -> f64| {
        MedianRange::of(repeats.iter().map(of)).map_or(0.0, |spread| spread.median)
    };
    let tps = median(|repeat| repeat.tps);
    let offered = median(|repeat| repeat.counts.offered as f64 / repeat.seconds.max(1e-9));
    let mut missed = objective.missed(repeats);
    if tps < KEPT_MIN * offered {
        missed.push(format!("only {tps:.0}/s of {offered:.0}/s committed"));
    }
    let kept = missed.is_empty();
    let mut reason = if kept { objective.to_string() } else { missed.join("; ") };
    if repeats.len() > 1 {
        reason = format!("{reason}; median of {} whole repeats", repeats.len());
    }
    if repeats.iter().any(|repeat| repeat.generator.limited) {
        reason = format!("{reason}; the load generator was the limit");
    }
    let (p50_ms, p99_ms) =
        (median(|repeat| repeat.latency.p50_ms), median(|repeat| repeat.latency.p99_ms));
    Probe { rate, tps, p50_ms, p99_ms, kept, reason }
}
