//! What makes the numbers of a point doubtful, in sentences.

use super::text::{short, thousands};
use crate::record::{Pace, Point, Repeat};

/// From this share on it is said that transactions did not commit, or were not answered.
const SHARE_SAID: f64 = 0.01;

/// What makes each repeat's numbers doubtful: the number of the repeat, and why.
#[must_use]
pub fn doubts(pace: Pace, point: &Point) -> Vec<(usize, String)> {
    let numbered = (1..).zip(&point.repeats);
    numbered
        .flat_map(|(number, repeat)| {
            let found = [
                unsteady(repeat),
                limited(repeat),
                failing(repeat),
                unanswered(pace, repeat),
                unstarted(repeat),
            ];
            found.into_iter().flatten().map(move |doubt| (number, doubt))
        })
        .collect()
}

fn unsteady(repeat: &Repeat) -> Option<String> {
    let steady = &repeat.steady;
    let (first, second) = (thousands(steady.first_half_tps), thousands(steady.second_half_tps));
    (steady.steady == Some(false)).then(|| {
        format!("it was not steady: {first}/s in its first half, {second}/s in its second")
    })
}

fn limited(repeat: &Repeat) -> Option<String> {
    let generator = &repeat.generator;
    let reasons = generator.reasons.join("; ");
    generator.limited.then(|| format!("the load generator was the limit: {reasons}"))
}

fn failing(repeat: &Repeat) -> Option<String> {
    let counts = &repeat.counts;
    let failed = counts.sent.saturating_sub(counts.committed);
    let share = failed as f64 / counts.sent.max(1) as f64;
    (share >= SHARE_SAID).then(|| {
        format!(
            "{} % of what was sent did not commit ({} reverted, {} invalid, {} rejected, {} lost): \
             the rate is of what did",
            short(share * 100.0),
            thousands(counts.reverted as f64),
            thousands(counts.invalid as f64),
            thousands(counts.rejected as f64),
            thousands(counts.lost as f64)
        )
    })
}

/// In an open loop what got no receipt is slower than any quantile says.
fn unanswered(pace: Pace, repeat: &Repeat) -> Option<String> {
    let share = repeat.unanswered();
    (pace != Pace::Closed && share >= SHARE_SAID).then(|| {
        format!(
            "{} % of what was to be sent got no receipt, most of it because the cluster had no room \
             for it in time: latencies are of the rest, and too good by that",
            short(share * 100.0)
        )
    })
}

fn unstarted(repeat: &Repeat) -> Option<String> {
    let nothing = repeat.counts.offered == 0;
    nothing.then(|| "nothing started while it was measured, so that no latency is known".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::example;
    use crate::record::{Counts, Pacing};

    #[test]
    fn what_is_doubtful_is_said_and_nothing_else() {
        let open = Pace::Open { rate: 1.0, pacing: Pacing::Fixed, seed: 1 };
        let mut point = example(&[1.0, 2.0], &[1]).points.remove(0);
        for repeat in &mut point.repeats {
            repeat.counts = Counts { offered: 1_000, sent: 1_000, committed: 995, ..repeat.counts };
        }
        assert_eq!(doubts(open, &point), []);
        let second = &mut point.repeats[1];
        second.steady.steady = Some(false);
        second.generator.limited = true;
        second.generator.reasons = vec!["busy".into()];
        second.counts =
            Counts { sent: 900, committed: 800, invalid: 100, unsent: 100, ..second.counts };
        let found = doubts(open, &point);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|(number, _)| *number == 2));
        assert!(found[1].1.ends_with("busy") && found[2].1.starts_with("11.1 % of what was sent"));
        assert!(found[3].1.starts_with("10 % of what was to be sent"));
        point.repeats[0].counts = Counts::default();
        assert!(doubts(open, &point)[0].1.starts_with("nothing started"));
        point.repeats.remove(0);
        // Nobody was to send anything at a time in a closed loop.
        assert_eq!(doubts(Pace::Closed, &point).len(), 3);
    }
}
