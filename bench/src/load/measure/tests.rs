//! Measuring against clusters that do what each test wants, under a virtual clock.

use std::sync::Mutex;

use super::super::tests::{Cluster, Fate, load, receipt};
use super::*;
use crate::record::Pacing;
use parsec_protocol::{ErrorCode, Outcome};

fn options(pace: Pace) -> MeasureOptions {
    MeasureOptions {
        pace,
        in_flight: 100,
        batch: 10,
        warm_up: Duration::from_secs(2),
        seconds: Duration::from_secs(6),
        drain: Duration::from_secs(1),
    }
}

fn open(rate: f64, pacing: Pacing) -> Pace {
    Pace::Open { rate, pacing, seed: 5 }
}

async fn measure_on(targets: &[Cluster], count: u32, options: &MeasureOptions) -> Measured {
    let measured = measure(targets, load(count, 7), options, &Cancelled::never(), &|_| {}).await;
    let measured = measured.unwrap();
    let counts = measured.repeat.counts;
    let last_words = counts.committed + counts.reverted + counts.invalid + counts.rejected;
    assert_eq!(counts.sent, last_words + counts.lost, "{counts:?}");
    assert_eq!(counts.offered, counts.sent + counts.unsent, "{counts:?}");
    measured
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_counts_what_started_after_the_warm_up() {
    // 100 in flight, 10 ms each: 10,000 a second.
    let target = [Cluster::committing(), Cluster::committing()];
    let Measured { repeat, ran_out, rest, .. } =
        measure_on(&target, 100_000, &options(Pace::Closed)).await;
    assert_eq!(ran_out, None);
    assert!((9_000.0..=10_000.0).contains(&repeat.tps), "{}", repeat.tps);
    assert!((10.0..11.1).contains(&repeat.latency.p50_ms), "{:?}", repeat.latency);
    assert_eq!(repeat.latency.count, repeat.counts.committed);
    assert_eq!(repeat.counts.accepted, repeat.counts.committed);
    assert_eq!((repeat.counts.late, repeat.counts.unsent), (0, 0));
    let before: u64 =
        repeat.samples.iter().filter(|s| s.phase == Phase::WarmUp).map(|s| s.sent).sum();
    let all: u64 = repeat.samples.iter().map(|sample| sample.sent).sum();
    assert_eq!(rest.len() as u64, 100_000 - all);
    assert!(before > 15_000 && before.abs_diff(all - repeat.counts.sent) <= 100, "{before}");
    assert_eq!(repeat.steady.steady, Some(true));
    assert!(repeat.samples.iter().filter(|s| s.phase == Phase::Measuring).count() >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_never_waits_until_nothing_is_in_flight() {
    let cluster = Cluster::committing();
    let options = MeasureOptions { in_flight: 10, batch: 250, ..options(Pace::Closed) };
    measure_on(std::slice::from_ref(&cluster), 20_000, &options).await;
    assert_eq!(cluster.submission_most(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_goes_on_where_it_stopped() {
    let cluster = Cluster::committing();
    let target = std::slice::from_ref(&cluster);
    let first = measure_on(target, 200_000, &options(Pace::Closed)).await;
    assert!(first.untouched > 0 && first.untouched <= first.rest.len());
    let all = load(200_000, 7);
    assert!(first.rest.ends_with(&all[all.len() - first.untouched..]));
    assert_eq!(first.flow.sent + first.rest.len() as u64, 200_000);
    assert_eq!(first.flow.committed, first.flow.sent);
    let never = Cancelled::never();
    measure(target, first.rest, &options(Pace::Closed), &never, &|_| {}).await.unwrap();
    super::super::tests::assert_ordered(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_runs_out_says_so() {
    let target = [Cluster::committing(), Cluster::committing()];
    let measured = measure_on(&target, 40_000, &options(Pace::Closed)).await;
    // 40,000 at 10,000 a second: 4 seconds, 2 of which were the warm-up.
    let after = measured.ran_out.unwrap().as_secs_f64();
    assert!((1.7..2.3).contains(&after), "{after}");
    // One that runs out during the warm-up, too.
    let measured = measure_on(&target, 1_000, &options(Pace::Closed)).await;
    assert_eq!(measured.ran_out, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_keeps_its_rate() {
    for pacing in [Pacing::Fixed, Pacing::Poisson] {
        let options = options(open(1_000.0, pacing));
        let needs = options.needs().unwrap().unwrap();
        assert!((7_500..8_500).contains(&needs), "{needs}");
        let count = u32::try_from(needs).unwrap();
        let Measured { repeat, ran_out, rest, .. } =
            measure_on(&[Cluster::committing()], count, &options).await;
        assert_eq!((ran_out, rest.len()), (None, 0));
        // More than is needed is left, and changes nothing.
        let more = measure_on(&[Cluster::committing()], count + 500, &options).await;
        assert_eq!(
            (more.rest.len(), more.untouched, &more.repeat.counts),
            (500, 500, &repeat.counts)
        );
        assert!((900.0..1_100.0).contains(&repeat.tps), "{}", repeat.tps);
        assert!((9.9..12.5).contains(&repeat.latency.p50_ms), "{:?}", repeat.latency);
        assert_eq!((repeat.counts.late, repeat.counts.unsent), (0, 0));
        assert!(!repeat.generator.limited, "{:?}", repeat.generator);
        let offered: u64 = repeat.samples.iter().map(|sample| sample.offered).sum();
        assert_eq!(offered, u64::from(count));
    }
}

/// The proof against coordinated omission: while the cluster stalls for a second, transactions go
/// on being due, and each of them waits for as long as is left of the stall.
#[tokio::test(start_paused = true)]
async fn a_stall_is_seen_by_all_that_were_due_meanwhile() {
    let mut options = options(open(1_000.0, Pacing::Fixed));
    options.in_flight = 50;
    let mut cluster = Cluster::committing();
    let start = Instant::now();
    cluster.stall = Some((start + Duration::from_secs(4), start + Duration::from_secs(5)));
    let repeat = measure_on(&[cluster.clone()], 8_000, &options).await.repeat;
    // Of 6,000 measured, 1,000 were due during the stall, and waited half of it in the mean.
    let histogram = repeat.latency.histogram.read().unwrap().unwrap();
    let waited = histogram.count_between(200_000, 2_000_000);
    assert!((700..1_100).contains(&waited), "{waited} of {:?}", repeat.latency);
    assert!(repeat.latency.p99_ms > 800.0 && repeat.latency.p50_ms < 20.0);
    assert!(repeat.counts.late > 700, "{:?}", repeat.counts);
    // It was the cluster that had no room, not the generator that was slow.
    assert!(!repeat.generator.limited, "{:?}", repeat.generator);

    // The closed loop, in contrast, would have seen but the few in flight.
    options.pace = Pace::Closed;
    let mut cluster = Cluster::committing();
    let start = Instant::now();
    cluster.stall = Some((start + Duration::from_secs(4), start + Duration::from_secs(5)));
    let repeat = measure_on(&[cluster], 100_000, &options).await.repeat;
    assert!(repeat.latency.p99_ms < 20.0, "{:?}", repeat.latency);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_is_too_slow_for_is_late_and_unsent() {
    // 10 in flight, 10 ms each: 1,000 a second, offered twice as many.
    let mut options = options(open(2_000.0, Pacing::Fixed));
    options.in_flight = 10;
    let Measured { repeat, rest, .. } =
        measure_on(&[Cluster::committing()], 16_000, &options).await;
    assert!((900.0..=1_000.0).contains(&repeat.tps), "{}", repeat.tps);
    assert_eq!(repeat.counts.offered, 12_000);
    assert!(repeat.counts.unsent > 7_000 && repeat.counts.late > 11_900, "{:?}", repeat.counts);
    assert!(rest.len() as u64 >= repeat.counts.unsent);
    assert!(repeat.latency.p50_ms > 2_000.0, "{:?}", repeat.latency);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_refuses_is_not_the_generators_fault() {
    // 8 at once, 10 ms each, and after a refusal a pause: less than the 1,000 a second.
    let mut cluster = Cluster::committing();
    cluster.limit = 8;
    let options = options(open(1_000.0, Pacing::Fixed));
    let repeat = measure_on(&[cluster], 8_000, &options).await.repeat;
    assert!(repeat.counts.retried > 1_000 && repeat.counts.late > 4_000, "{:?}", repeat.counts);
    assert!(!repeat.generator.limited, "{:?}", repeat.generator);
}

#[tokio::test(start_paused = true)]
async fn phases_are_told_in_order_and_samples_on_time() {
    let told = Mutex::new(Vec::new());
    let on_event = |event: Event| told.lock().unwrap().push(event);
    let never = Cancelled::never();
    let options = options(open(100.0, Pacing::Fixed));
    measure(&[Cluster::committing()], load(800, 3), &options, &never, &on_event).await.unwrap();
    let told = told.into_inner().unwrap();
    let phases: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::Phase(phase) => Some(*phase),
            Event::Second(_) => None,
        })
        .collect();
    assert_eq!(phases, [Phase::WarmUp, Phase::Measuring, Phase::Draining]);
    let ends: Vec<f64> = told
        .iter()
        .filter_map(|event| match event {
            Event::Second(sample) => Some(sample.end.round()),
            Event::Phase(_) => None,
        })
        .collect();
    assert_eq!(ends, [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_measurement_ends_and_says_so() {
    let (cancel, cancelled) = cancellation();
    let cancelling = |event: Event| {
        if event == Event::Phase(Phase::Measuring) {
            cancel.cancel();
        }
    };
    let target = [Cluster::new(|_| Fate::Hangs)];
    let options = options(Pace::Closed);
    let measured =
        measure(&target, load(1_000, 7), &options, &cancelled, &cancelling).await.unwrap();
    assert!(measured.cancelled && measured.ran_out.is_none());
    assert_eq!(measured.repeat.counts.committed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_silent_for_good_is_given_up() {
    let start = Instant::now();
    let cluster = Cluster::new(move |_| match start.elapsed() < Duration::from_secs(6) {
        true => Fate::Says(receipt(Outcome::Committed)),
        false => Fate::Hangs,
    });
    let measured = measure_on(&[cluster], 100_000, &options(Pace::Closed)).await;
    assert_eq!((measured.repeat.counts.lost, measured.flow.lost), (100, 100));
    assert!((60..80).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn other_outcomes_count_but_not_as_throughput() {
    let target = [Cluster::new(|_| Fate::Says(receipt(Outcome::Reverted(ErrorCode::Refused))))];
    let Measured { repeat, .. } = measure_on(&target, 100_000, &options(Pace::Closed)).await;
    assert!(repeat.tps == 0.0 && repeat.counts.reverted > 10_000, "{:?}", repeat.counts);
    assert!(repeat.first_failure.unwrap().starts_with("reverted: "));
    assert_eq!(repeat.failures["Refused"], repeat.counts.reverted);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_measured_is_refused() {
    let never = Cancelled::never();
    let one = [Cluster::committing()];
    let refused = |targets, options: MeasureOptions| {
        let never = &never;
        async move { measure(targets, load(1, 1), &options, never, &|_| {}).await.unwrap_err() }
    };
    let closed = options(Pace::Closed);
    assert!(matches!(refused(&[], closed).await, LoadError::NoConnections));
    let none = MeasureOptions { in_flight: 0, ..closed };
    assert!(matches!(refused(&one, none).await, LoadError::Options { .. }));
    let none = MeasureOptions { batch: 0, ..closed };
    assert!(matches!(refused(&one, none).await, LoadError::Options { .. }));
    let none = options(open(0.0, Pacing::Fixed));
    assert!(matches!(refused(&one, none).await, LoadError::Rate { .. }));
}
