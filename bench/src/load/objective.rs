//! What a run is to reach: `tps>10000,p99<50ms`.

use std::str::FromStr;

use crate::record::Repeat;

/// What can be asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Tps,
    Mean,
    P50,
    P90,
    P95,
    P99,
    P999,
    P9999,
    Max,
    CpuMicros,
    Share(Share),
}

/// A share of the transactions that were offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Committed,
    Reverted,
    Invalid,
    Rejected,
    Lost,
    Late,
    Strayed,
}

/// The names of all metrics.
const METRICS: [(&str, Metric); 17] = [
    ("tps", Metric::Tps),
    ("mean", Metric::Mean),
    ("p50", Metric::P50),
    ("p90", Metric::P90),
    ("p95", Metric::P95),
    ("p99", Metric::P99),
    ("p999", Metric::P999),
    ("p9999", Metric::P9999),
    ("max", Metric::Max),
    ("cpu", Metric::CpuMicros),
    ("committed", Metric::Share(Share::Committed)),
    ("reverted", Metric::Share(Share::Reverted)),
    ("invalid", Metric::Share(Share::Invalid)),
    ("rejected", Metric::Share(Share::Rejected)),
    ("lost", Metric::Share(Share::Lost)),
    ("late", Metric::Share(Share::Late)),
    ("strayed", Metric::Share(Share::Strayed)),
];

/// How a metric is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The signs of relations; those of two characters first.
const RELATIONS: [(&str, Relation); 4] = [
    ("<=", Relation::LessOrEqual),
    (">=", Relation::GreaterOrEqual),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

/// One thing that a run is to reach, such as `p99<50ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    metric: Metric,
    relation: Relation,
    /// In the metric's own unit: transactions a second, milliseconds, microseconds of processor
    /// time, or a share from 0 to 1.
    bound: f64,
    text: String,
}

/// Several of them, of which all are to be reached: `tps>10000,p99<50ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct Objectives(Vec<Objective>);

/// Why a text is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum BadObjective {
    #[error("'{text}' compares nothing: write METRIC<BOUND or METRIC>BOUND, such as p99<50ms")]
    NoRelation { text: String },
    #[error("'{metric}' is no metric; there are {}", names())]
    NoMetric { metric: String },
    #[error("'{bound}' is no bound for {metric}: write {example}")]
    NoBound { metric: String, bound: String, example: &'static str },
    #[error("there is no objective in ''")]
    Nothing,
}

fn names() -> String {
    METRICS.map(|(name, _)| name).join(", ")
}

impl Metric {
    fn example(self) -> &'static str {
        match self {
            Self::Tps => "a number, such as 10000 or 10k",
            Self::CpuMicros => "a time with its unit, such as 90us",
            Self::Share(_) => "a share, such as 0.1% or 0.001",
            _ => "a time with its unit, such as 50ms, 1.5s or 800us",
        }
    }

    /// Reads a bound in the metric's own unit.
    fn bound(self, text: &str) -> Option<f64> {
        let units: &[(&str, f64)] = match self {
            Self::Tps => &[("k", 1e3), ("M", 1e6), ("", 1.0)],
            Self::Share(_) => &[("%", 0.01), ("", 1.0)],
            Self::CpuMicros => &[("us", 1.0), ("µs", 1.0), ("ms", 1e3)],
            _ => &[("us", 1e-3), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)],
        };
        units.iter().find_map(|(unit, factor)| {
            let number = text.strip_suffix(unit)?.trim_end();
            // The standard's own reader takes "inf" and "NaN", too.
            let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let value: f64 = number.parse().ok().filter(|_| digits)?;
            Some(value * factor)
        })
    }

    /// The share of the slowest that it says nothing of, if it is a latency: if no more than these
    /// were not answered, it is known.
    fn tail(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.1,
            Self::P95 => 0.05,
            Self::P99 => 0.01,
            Self::P999 => 0.001,
            Self::P9999 => 0.000_1,
            Self::Mean | Self::Max => 0.0,
            Self::Tps | Self::CpuMicros | Self::Share(_) => 1.0,
        }
    }

    /// What a measurement has of it, if that is known.
    fn of(self, repeat: &Repeat) -> Option<f64> {
        let latency = &repeat.latency;
        let is_known = latency.count > 0 && repeat.unanswered() <= self.tail();
        let time = |value: f64| is_known.then_some(value);
        match self {
            Self::Tps => Some(repeat.tps),
            Self::Mean => time(latency.mean_ms),
            Self::P50 => time(latency.p50_ms),
            Self::P90 => time(latency.p90_ms),
            Self::P95 => time(latency.p95_ms),
            Self::P99 => time(latency.p99_ms),
            Self::P999 => time(latency.p999_ms),
            Self::P9999 => time(latency.p9999_ms),
            Self::Max => time(latency.max_ms),
            Self::CpuMicros => repeat.cpu_micros(),
            Self::Share(share) => {
                let counts = &repeat.counts;
                let part = match share {
                    Share::Committed => counts.committed,
                    Share::Reverted => counts.reverted,
                    Share::Invalid => counts.invalid,
                    Share::Rejected => counts.rejected,
                    Share::Lost => counts.lost,
                    Share::Late => counts.late,
                    Share::Strayed => counts.strayed,
                };
                (counts.offered > 0).then(|| part as f64 / counts.offered as f64)
            }
        }
    }

    /// A value with its unit, for people.
    fn show(self, value: f64) -> String {
        match self {
            Self::Tps => format!("{value:.0}/s"),
            Self::CpuMicros => format!("{value:.1} us"),
            Self::Share(_) => format!("{:.3} %", value * 100.0),
            _ => format!("{value:.2} ms"),
        }
    }
}

impl FromStr for Objective {
    type Err = BadObjective;

    fn from_str(text: &str) -> Result<Self, BadObjective> {
        let text = text.trim();
        let parts = RELATIONS.iter().find_map(|(sign, relation)| {
            text.split_once(sign).map(|(metric, bound)| (metric.trim(), *relation, bound.trim()))
        });
        let (name, relation, bound) =
            parts.ok_or_else(|| BadObjective::NoRelation { text: text.to_owned() })?;
        let known = METRICS.iter().find(|(known, _)| *known == name);
        let (_, metric) =
            known.ok_or_else(|| BadObjective::NoMetric { metric: name.to_owned() })?;
        let number = metric.bound(bound).ok_or_else(|| BadObjective::NoBound {
            metric: name.to_owned(),
            bound: bound.to_owned(),
            example: metric.example(),
        })?;
        Ok(Self { metric: *metric, relation, bound: number, text: text.to_owned() })
    }
}

impl Objective {
    /// Whether these measurements, by their median, reach it; if not, why.
    ///
    /// # Errors
    /// What was found instead, or that it is not known.
    pub fn check(&self, repeats: &[Repeat]) -> Result<(), String> {
        let found: Vec<f64> = repeats.iter().filter_map(|repeat| self.metric.of(repeat)).collect();
        let complete = found.len() == repeats.len();
        let found = crate::record::MedianRange::of(found).filter(|_| complete);
        let found = found.ok_or_else(|| self.unknown(repeats))?.median;
        let reached = match self.relation {
            Relation::Less => found < self.bound,
            Relation::LessOrEqual => found <= self.bound,
            Relation::Greater => found > self.bound,
            Relation::GreaterOrEqual => found >= self.bound,
        };
        match reached {
            true => Ok(()),
            false => Err(format!("{}: it is {}", self.text, self.metric.show(found))),
        }
    }
}

impl Objective {
    fn unknown(&self, repeats: &[Repeat]) -> String {
        let unanswered = repeats.iter().map(Repeat::unanswered).fold(0.0, f64::max);
        match unanswered > self.metric.tail() {
            true => format!(
                "{}: that is not known, since {:.2} % of what was offered got no receipt",
                self.text,
                unanswered * 100.0
            ),
            false => format!("{}: that is not known", self.text),
        }
    }
}

impl FromStr for Objectives {
    type Err = BadObjective;

    fn from_str(text: &str) -> Result<Self, BadObjective> {
        if text.trim().is_empty() {
            return Err(BadObjective::Nothing);
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl std::fmt::Display for Objectives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|objective| objective.text.as_str()).collect();
        f.write_str(&texts.join(","))
    }
}

impl Objectives {
    /// Those that these measurements, by their medians, don't reach, and why.
    #[must_use]
    pub fn missed(&self, repeats: &[Repeat]) -> Vec<String> {
        self.0.iter().filter_map(|objective| objective.check(repeats).err()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record;

    fn repeats(tps: &[f64], latencies: &[u64]) -> Vec<Repeat> {
        record::tests::example(tps, latencies).points.remove(0).repeats
    }

    fn missed(text: &str, tps: &[f64], latencies: &[u64]) -> Vec<String> {
        text.parse::<Objectives>().unwrap().missed(&repeats(tps, latencies))
    }

    #[test]
    fn objectives_are_held_against_the_median() {
        assert!(
            missed("tps>10000, p99 < 50ms", &[9_000.0, 11_000.0, 12_000.0], &[20_000]).is_empty()
        );
        assert_eq!(
            missed("tps>10k", &[9_000.0, 9_500.0, 12_000.0], &[1]),
            ["tps>10k: it is 9500/s"]
        );
        assert_eq!(
            missed("p50<=20.1ms,max<0.01s", &[1.0], &[20_000]),
            ["max<0.01s: it is 20.02 ms"]
        );
        assert!(missed("cpu<=5000us,committed<=0%", &[1.0], &[1]).is_empty());
        assert_eq!(missed("p99<1s", &[1.0], &[]), ["p99<1s: that is not known"]);
        assert_eq!(missed("tps>1", &[], &[]), ["tps>1: that is not known"]);
    }

    #[test]
    fn what_was_never_answered_is_slower_than_any_bound() {
        let mut repeats = repeats(&[1.0], &[1_000; 100]);
        repeats[0].counts =
            record::Counts { offered: 1_000, unsent: 8, rejected: 4, lost: 8, ..repeats[0].counts };
        let missed = |text: &str| text.parse::<Objectives>().unwrap().missed(&repeats);
        assert!(missed("p50<2ms,p95<2ms,tps>=1").is_empty());
        let says = "that is not known, since 2.00 % of what was offered got no receipt";
        assert_eq!(
            missed("p99<2ms,mean<2ms"),
            [format!("p99<2ms: {says}"), format!("mean<2ms: {says}")]
        );
        repeats[0].counts.lost = 0;
        assert_eq!(
            "p99<2ms,p999<2ms,max<2ms".parse::<Objectives>().unwrap().missed(&repeats).len(),
            3
        );
        repeats[0].counts.unsent = 6;
        assert!("p99<2ms".parse::<Objectives>().unwrap().missed(&repeats).is_empty());
    }

    #[test]
    fn what_is_no_objective_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Objectives>().unwrap_err().to_string();
        assert!(refused("tps=3").contains("compares nothing"));
        assert!(refused("speed>3").contains("there are tps, mean, p50"));
        assert!(refused("p99<50").contains("such as 50ms"));
        assert!(refused("p99<-5ms").contains("no bound"));
        assert!(refused("tps>inf").contains("no bound"));
        assert!(refused("lost<NaN").contains("no bound"));
        assert!(refused("tps>5ms").contains("no bound"));
        assert!(refused("tps>1,").contains("compares nothing"));
        assert_eq!(refused(" "), "there is no objective in ''");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in ".{0,40}") {
            text.parse::<Objectives>().ok();
        }

        #[test]
        fn every_metric_takes_a_bound_and_says_it_again(
            index in 0..METRICS.len(),
            relation in 0..RELATIONS.len(),
            bound in 0u32..1_000_000,
        ) {
            let (name, metric) = METRICS[index];
            let unit = match metric {
                Metric::Tps => "",
                Metric::Share(_) => "%",
                _ => "us",
            };
            let text = format!("{name}{}{bound}{unit}", RELATIONS[relation].0);
            prop_assert_eq!(text.parse::<Objectives>().unwrap().to_string(), text);
        }
    }
}
