//! What was measured, as the record of a run.

use parsec_bench::record::{
    LoadSettings, MedianRange, Pace, Point, Run, RunKind, SCHEMA, Usl, UslPoint, WorkloadRecord,
};
use parsec_bench::usl::{self, Measured};

use super::super::environment;
use super::Plan;
use super::points::Points;
use super::site::Site;
use crate::failure::Failure;

/// From which share of the machine on it is told that others used it.
const OTHERS_SHARE: f64 = 0.05;

/// The record; when it began and how long it took is left to be filled in. `ended` is why it ended
/// early, if it did.
pub(super) fn record(plan: &Plan<'_>, site: &Site, points: Points, ended: Option<&Failure>) -> Run {
    let args = plan.args;
    let workload = workload(&points.workload);
    let points = points.into_points();
    let most = points.iter().map(|point| point.hosts).max().unwrap_or(0);
    let (laws, mut caveats) = laws(&points);
    if laws.iter().any(|law| law.points.len() == usl::POINTS_MIN) {
        caveats.push(
            "The law has three parameters: to three points it fits whatever they are.".to_owned(),
        );
    }
    caveats.extend(site.caveats());
    caveats.extend(relay(&points));
    caveats.extend(others(&points));
    if cfg!(debug_assertions) {
        caveats.push(
            "Compiled without the release profile: figures are good for trying things out only."
                .to_owned(),
        );
    }
    caveats.extend(ended.map(|failure| format!("It ended before all was measured: {failure}")));
    let largest = plan.run_args(&super::Visit { repeat: 0, hosts: most, share: None }, 1);
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let mut cluster = site.record(most);
    cluster.notes.push(format!(
        "each repeat on a new cluster; {} transactions in flight for each host",
        args.in_flight
    ));
    let name = args.name.clone();
    Run {
        schema: SCHEMA,
        name: name.unwrap_or_else(|| format!("scale-{}", args.knobs.workload)),
        kind: RunKind::Scale,
        started_ms: 0,
        took_seconds: 0.0,
        command: environment::command(),
        machine: environment::machine(),
        versions: environment::versions(),
        workload,
        load: LoadSettings {
            pace: Pace::Closed,
            in_flight: count(largest.in_flight),
            batch: count(largest.batch),
            connections: count(args.clients),
            warm_up_seconds: f64::from(args.warm_up),
            seconds: f64::from(args.seconds),
            repeats: args.repeat,
        },
        cluster,
        points,
        search: None,
        lines: None,
        usl: laws,
        model: Vec::new(),
        caveats,
    }
}

/// What was sent to all clusters: that of one of them, without what differs between them.
fn workload(one: &WorkloadRecord) -> WorkloadRecord {
    let mut spec = one.spec.clone();
    let of = |key: &str| spec.get(key).map(|value| value.to_string().replace('"', ""));
    let mut name = of("workload").unwrap_or_else(|| one.name.clone());
    if let Some(accounts) = of("accounts") {
        name = format!("{name}, {accounts} accounts");
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("spread");
    }
    WorkloadRecord { name, spec }
}

/// What the relay used, if there was one.
fn relay(points: &[Point]) -> Option<String> {
    let cores = points.iter().flat_map(|point| &point.repeats).filter_map(|repeat| {
        repeat.resources.limits.relay_seconds.map(|used| used / repeat.seconds.max(1e-9))
    });
    let MedianRange { median, min, max } = MedianRange::of(cores)?;
    Some(format!(
        "The relay used {median:.2} of a core in the middle ({min:.2} to {max:.2}), which hosts, \
         sequencer and load generator on the same machine had not."
    ))
}

/// What others used of the machine, if that is worth a word.
fn others(points: &[Point]) -> Option<String> {
    let repeats = points.iter().flat_map(|point| &point.repeats);
    let cores = repeats.filter_map(|repeat| repeat.resources.limits.others_cores);
    let MedianRange { median, max, .. } = MedianRange::of(cores)?;
    let worth = f64::from(environment::cores()) * OTHERS_SHARE;
    (max > worth).then(|| {
        format!(
            "Others had work for the machine, too: {median:.2} cores in the middle, up to \
             {max:.2}, which these figures lack."
        )
    })
}

/// The law of each share that was measured with enough numbers of hosts, and why others have none.
fn laws(points: &[Point]) -> (Vec<Usl>, Vec<String>) {
    let mut shares: Vec<Option<f64>> = points.iter().map(|point| point.multi_partition).collect();
    // Points are in the order of shares.
    shares.dedup();
    let (mut laws, mut missing) = (Vec::new(), Vec::new());
    for share in shares {
        let of_share: Vec<(u16, f64)> = points
            .iter()
            .filter(|point| point.multi_partition == share)
            .filter_map(|point| {
                Some((point.hosts, point.spread(|repeat| Some(repeat.tps))?.median))
            })
            .collect();
        match law(share, &of_share) {
            Ok(law) => laws.push(law),
            Err(reason) => missing.push(format!(
                "No law was fitted{}: {reason}.",
                share.map_or(String::new(), |share| format!(
                    " to {:.0} % multi-partition",
                    share * 100.0
                ))
            )),
        }
    }
    (laws, missing)
}

fn law(share: Option<f64>, points: &[(u16, f64)]) -> Result<Usl, usl::NoFit> {
    let measured: Vec<Measured> = points
        .iter()
        .map(|(hosts, tps)| Measured { hosts: f64::from(*hosts), tps: *tps })
        .collect();
    let fit = usl::fit(&measured)?;
    let base = points.iter().min_by_key(|(hosts, _)| *hosts);
    let each = |(hosts, tps): (u16, f64)| tps / f64::from(hosts.max(1));
    let base = base.map_or(1.0, |base| each(*base));
    let fitted = points.iter().zip(&fit.fitted).map(|(point, fitted)| UslPoint {
        hosts: point.0,
        measured_tps: point.1,
        fitted_tps: *fitted,
        efficiency: each(*point) / base,
    });
    Ok(Usl {
        multi_partition: share,
        lambda: fit.lambda,
        sigma: fit.sigma,
        kappa: fit.kappa,
        r_squared: fit.r_squared,
        points: fitted.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efficiency_is_relative_to_the_fewest_hosts() {
        let law = law(Some(0.1), &[(8, 6_000.0), (2, 2_000.0), (4, 4_000.0)]).unwrap();
        let efficiency: Vec<f64> = law.points.iter().map(|point| point.efficiency).collect();
        assert_eq!(efficiency, [0.75, 1.0, 1.0]);
        assert_eq!(law.multi_partition, Some(0.1));
        assert!((law.points[0].fitted_tps / 6_000.0 - 1.0).abs() < 0.2);
    }

    #[test]
    fn what_differs_between_clusters_is_not_of_the_workload() {
        let spec = serde_json::json!({
            "workload": "erc20", "seed": 1, "accounts": 4096, "spread": { "percent": 10 }
        });
        let record = workload(&WorkloadRecord { name: "x".to_owned(), spec });
        assert_eq!(record.name, "erc20, 4096 accounts");
        assert!(record.spec.get("spread").is_none() && record.spec.get("seed").is_some());
    }
}
