fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().unwrap().parse().unwrap();
    let count: u64 = args.next().unwrap().parse().unwrap();
    let kept: usize = args.next().map_or(0, |a| a.parse().unwrap());
    let names: Vec<String> = args.collect();
    let started = std::time::Instant::now();
    if !names.is_empty() {
        parsec_simulator::quiet_panics();
        for plant in parsec_simulator::plants::PLANTS
            .iter()
            .filter(|p| names[0] == "all" || names.iter().any(|n| n == p.name))
        {
            let mut nths = vec![];
            let mut rules = std::collections::BTreeMap::new();
            let mut at = from;
            while at < from + count {
                let r =
                    parsec_simulator::run(at, Some(plant.bug), parsec_simulator::TraceLevel::Off);
                if let Some(v) = r.violation {
                    nths.push(at - from + 1);
                    *rules.entry(v.rule).or_insert(0) += 1;
                }
                at += 1;
            }
            println!(
                "{:<24} {} of {} found; first {:?} {:?} {:?}",
                plant.name,
                nths.len(),
                count,
                nths.first(),
                rules,
                started.elapsed()
            );
        }
        return;
    }
    for seed in from..from + count {
        let level = if kept > 0 {
            parsec_simulator::TraceLevel::Last(kept)
        } else {
            parsec_simulator::TraceLevel::Off
        };
        let report = parsec_simulator::run(seed, None, level);
        report.trace.iter().for_each(|l| println!("{l}"));
        println!("{seed} {:?}", report.tally);
        if let Some(v) = report.violation {
            println!(
                "seed {seed}: {}: {}",
                v.rule,
                v.detail.chars().take(1500).collect::<String>()
            );
        }
    }
    println!("{:?}", started.elapsed());
}
