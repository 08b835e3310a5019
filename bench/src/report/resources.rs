//! The charts of what was used: processor time by process and stage, and against what can't be
//! avoided.

use std::collections::BTreeMap;

use super::svg::{Bars, COLOURS};
use crate::record::{Lines, Point, Repeat, Role};

/// What the smaller stages are called together.
const OTHERS: &str = "other stages";

/// Processor time for each committed transaction, by process and stage.
pub(super) fn by_host(point: &Point) -> Option<String> {
    let used = Used::of(point)?;
    let stages = used.stages();
    let mut bars: Vec<(String, Vec<f64>)> = Vec::new();
    for (_, host) in used.hosts() {
        let of_stage = |stage: &String| used.micros(&host, stage, &stages);
        bars.push((host.clone(), stages.iter().map(of_stage).collect()));
    }
    let bars = Bars {
        title: "processor time by process and stage".to_owned(),
        label: "microseconds of a core for each committed transaction".to_owned(),
        parts: stages,
        bars,
    };
    Some(bars.render())
}

/// Processor time for each committed transaction, by stage, over all processes; and what can't be
/// avoided, if that was measured.
pub(super) fn by_stage(point: &Point, lines: Option<&Lines>) -> Option<String> {
    if !point.repeats.iter().any(|repeat| repeat.resources.knows_cluster()) {
        return None;
    }
    let used = Used::of(point)?;
    let mut parts = used.stages();
    let total = |stage: &String| -> f64 {
        used.hosts().iter().map(|(_, host)| used.micros(host, stage, &parts)).sum()
    };
    let measured: Vec<f64> = parts.iter().map(total).collect();
    let mut bars = vec![("all processes".to_owned(), measured)];
    if let Some(lines) = lines.filter(|lines| !lines.costs.is_empty()) {
        let mut limit = vec![0.0; parts.len()];
        for cost in &lines.costs {
            let stage = stage_of(&cost.stage);
            match parts.iter().position(|part| part == stage) {
                Some(part) => limit[part] += cost.micros,
                None => {
                    parts.push(format!("unavoidable: {}", cost.stage));
                    limit.push(cost.micros);
                }
            }
        }
        bars.push(("unavoidable".to_owned(), limit));
    }
    let bars = Bars {
        title: "processor time by stage".to_owned(),
        label: "microseconds of a core for each committed transaction".to_owned(),
        parts,
        bars,
    };
    Some(bars.render())
}

/// The stage at which a cluster has a cost that can't be avoided, so that both have one colour.
fn stage_of(cost: &str) -> &str {
    let known = [
        ("admission", "admission"),
        ("execution", "scheduling, execution"),
        ("encoding", "network"),
        ("log", "log"),
        ("digests", "storage"),
        ("blocks", "blocks"),
    ];
    known.iter().find(|(begins, _)| cost.starts_with(begins)).map_or(cost, |(_, stage)| *stage)
}

/// Microseconds for each committed transaction, by process and stage, the mean of all repeats.
struct Used(BTreeMap<(Role, String), BTreeMap<String, f64>>);

impl Used {
    fn of(point: &Point) -> Option<Self> {
        let completed = |repeat: &Repeat| repeat.counts.completed as f64;
        let completed: f64 = point.repeats.iter().map(completed).sum();
        let mut used: BTreeMap<_, BTreeMap<String, f64>> = BTreeMap::new();
        for cpu in point.repeats.iter().flat_map(|repeat| &repeat.resources.cpu) {
            let stages = used.entry((cpu.role, cpu.host.clone())).or_default();
            *stages.entry(cpu.stage.clone()).or_default() += cpu.seconds * 1e6 / completed;
        }
        (!used.is_empty() && completed > 0.0).then_some(Self(used))
    }

    /// Processes, the sequencer first, hosts by their numbers.
    fn hosts(&self) -> Vec<(Role, String)> {
        let mut hosts: Vec<_> = self.0.keys().cloned().collect();
        hosts.sort_by_key(|(role, host)| (*role, host.len(), host.clone()));
        hosts
    }

    /// Stages, those that cost most first, as many as there are colours.
    fn stages(&self) -> Vec<String> {
        let mut sums: BTreeMap<&String, f64> = BTreeMap::new();
        for (stage, micros) in self.0.values().flatten() {
            *sums.entry(stage).or_default() += micros;
        }
        let mut stages: Vec<_> = sums.into_iter().collect();
        stages.sort_by(|one, other| other.1.total_cmp(&one.1));
        let mut names: Vec<String> = stages.into_iter().map(|(stage, _)| stage.clone()).collect();
        if names.len() > COLOURS {
            names.truncate(COLOURS - 1);
            names.push(OTHERS.to_owned());
        }
        names
    }

    /// What a process used for a stage; for the others, whatever is not in `stages`.
    fn micros(&self, host: &str, stage: &str, stages: &[String]) -> f64 {
        let of_host = self.0.iter().filter(|((_, name), _)| name == host);
        let all = of_host.flat_map(|(_, stages)| stages);
        let wanted = |name: &String| match stage {
            OTHERS => !stages.contains(name) || name == OTHERS,
            _ => name == stage,
        };
        all.filter(|(name, _)| wanted(name)).map(|(_, micros)| micros).sum()
    }
}
