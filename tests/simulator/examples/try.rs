fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().unwrap().parse().unwrap();
    let count: u64 = args.next().unwrap().parse().unwrap();
    let kept: usize = args.next().map_or(0, |a| a.parse().unwrap());
    let started = std::time::Instant::now();
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
