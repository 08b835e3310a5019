//! The transactions of a run: built ahead, handed out in order, and what was not sent taken back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressBar;
use parsec_bench::workload::{LoadTransaction, Workload, WorkloadSpec, cached};

use crate::failure::{Context, Failure};

/// Counts of transactions are rounded up to these, times a power of ten, so that what was signed
/// for a run at about the same rate can be used again.
const ROUND: [usize; 5] = [10, 15, 25, 40, 60];

/// The transactions of a run.
pub(super) struct Supply {
    spec: WorkloadSpec,
    workload: Box<dyn Workload>,
    cache: PathBuf,
    /// What is built and not sent.
    ready: Vec<LoadTransaction>,
    /// How many of it, at its end, nothing behind was ever sent of.
    untouched: usize,
    /// How many were built.
    built: usize,
    bar: ProgressBar,
}

impl Supply {
    /// The first `count` transactions of a workload.
    pub(super) fn new(
        spec: WorkloadSpec,
        count: usize,
        cache: PathBuf,
        bar: ProgressBar,
    ) -> Result<Self, Failure> {
        let (workload, ready) = build(&spec, count, &cache, &bar)?;
        let built = ready.len();
        Ok(Self { spec, workload, cache, built, untouched: built, ready, bar })
    }

    /// The workload's name, with what matters of its options.
    pub(super) fn name(&self) -> String {
        self.workload.name()
    }

    /// The specification.
    pub(super) fn spec(&self) -> &WorkloadSpec {
        &self.spec
    }

    /// The workload, of which so many transactions are built as there are altogether.
    pub(super) fn workload(&self) -> &dyn Workload {
        &*self.workload
    }

    /// Takes everything that is ready, `count` at least.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<LoadTransaction>, Failure> {
        let missing = count.saturating_sub(self.ready.len());
        if missing > 0 {
            self.extend(rounded(self.built + missing))?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// Takes back what was not sent, in order. Nothing behind the last `untouched` of it was sent now;
    /// something between them may have been before.
    pub(super) fn put_back(&mut self, rest: Vec<LoadTransaction>, untouched: usize) {
        debug_assert!(self.ready.is_empty(), "everything ready was taken");
        self.ready = rest;
        self.untouched = self.untouched.min(untouched);
    }

    /// Builds more, until so many are built altogether.
    fn extend(&mut self, total: usize) -> Result<(), Failure> {
        // Built from the start if they can be kept, since a file holds the first ones of a spec.
        if self.spec.is_signed() && self.built * 2 < total {
            let (workload, all) = build(&self.spec, total, &self.cache, &self.bar)?;
            self.ready.extend(all.into_iter().skip(self.built));
            self.workload = workload;
        } else {
            let more = total - self.built;
            self.ready.extend(with_bar(&self.bar, more, |told| self.workload.build(more, told)));
        }
        self.untouched += total - self.built;
        self.built = total;
        Ok(())
    }

    /// Returns the workload as it is when everything has been sent that anything behind was sent of,
    /// and what of that was not.
    pub(super) fn close(mut self) -> Result<Closed, Failure> {
        let holes = self.ready.len().saturating_sub(self.untouched);
        self.ready.truncate(holes);
        let sent = self.built - self.untouched;
        let mut workload = self.spec.open().context("the workload")?;
        workload.skip(sent);
        Ok((workload, self.ready, sent))
    }
}

/// A workload of which so many transactions are built as are sent at the end, those that were left
/// out between others, and how many that is.
type Closed = (Box<dyn Workload>, Vec<LoadTransaction>, usize);
type Built = (Box<dyn Workload>, Vec<LoadTransaction>);

fn build(
    spec: &WorkloadSpec,
    count: usize,
    cache: &PathBuf,
    bar: &ProgressBar,
) -> Result<Built, Failure> {
    if spec.is_signed() {
        // A directory that can't be made only makes it take longer next time.
        std::fs::create_dir_all(cache).ok();
    }
    let prepared = with_bar(bar, count, |told| cached(spec, count, Some(cache), told));
    let prepared = prepared.context("the workload")?;
    Ok((prepared.workload, prepared.load))
}

fn with_bar<T>(
    bar: &ProgressBar,
    count: usize,
    work: impl FnOnce(&(dyn Fn(usize) + Sync)) -> T,
) -> T {
    bar.reset();
    bar.set_length(count as u64);
    bar.set_message("building and signing");
    let done = AtomicUsize::new(0);
    let told = |built: usize| {
        let built = done.fetch_max(built, Ordering::Relaxed).max(built);
        bar.set_position(built as u64);
    };
    let result = tokio::task::block_in_place(|| work(&told));
    bar.finish_and_clear();
    result
}

/// The next of the counts to which counts are rounded up.
pub(super) fn rounded(count: usize) -> usize {
    let mut power = 1_usize;
    loop {
        let found = ROUND.iter().map(|round| round.saturating_mul(power)).find(|c| *c >= count);
        match found {
            Some(rounded) => return rounded,
            None => power = power.saturating_mul(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use parsec_bench::workload::WorkloadName;

    use super::*;

    #[test]
    fn counts_are_rounded_up_to_few() {
        for (count, expected) in [(0, 10), (10, 10), (11, 15), (61, 100), (100_001, 150_000)] {
            assert_eq!(rounded(count), expected);
        }
    }

    fn supply(name: WorkloadName, directory: &std::path::Path) -> Supply {
        let spec = WorkloadSpec::new(name, 3, 7);
        Supply::new(spec, 100, directory.to_owned(), ProgressBar::hidden()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_handed_out_twice_or_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for name in [WorkloadName::NativeTransfer, WorkloadName::Erc20] {
            let mut supply = supply(name, directory.path());
            let mut seen = supply.take(60).unwrap();
            assert_eq!(seen.len(), 100);
            let rest = seen.split_off(60);
            supply.put_back(rest, 40);
            let mut taken = supply.take(400).unwrap();
            assert!(taken.len() >= 400);
            // Of these, some holes and the end come back.
            let rest = taken.split_off(300);
            let hole = taken.remove(250);
            seen.extend(taken);
            let untouched = rest.len();
            supply.put_back([vec![hole], rest].concat(), untouched);
            let (workload, holes, sent) = supply.close().unwrap();
            assert_eq!((holes.len(), sent), (1, 360));
            let mut whole = WorkloadSpec::new(name, 3, 7).open().unwrap();
            let all = whole.build(360, &|_| {});
            seen.insert(310, holes[0].clone());
            assert!(seen == all, "{name}");
            assert_eq!(workload.multi_partition(), whole.multi_partition());
        }
    }

    /// One connection may be far ahead of another when a measurement ends; the next one, which begins
    /// with what was left out, may end before it comes there.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_sent_ahead_is_remembered_when_less_is_sent_next() {
        let directory = tempfile::tempdir().unwrap();
        let mut supply = supply(WorkloadName::Erc20, directory.path());
        let mut load = supply.take(1).unwrap();
        // Of a hundred, 0 to 19 are sent and 70.
        let ahead = load.remove(70);
        let mut seen: Vec<_> = load.drain(..20).collect();
        supply.put_back(load, 29);
        // 20 to 39 follow: behind them nothing was sent this time.
        let mut load = supply.take(1).unwrap();
        seen.extend(load.drain(..20));
        supply.put_back(load, 59);
        let (_, holes, sent) = supply.close().unwrap();
        assert_eq!((holes.len(), sent), (30, 71));
        let mut whole = WorkloadSpec::new(WorkloadName::Erc20, 3, 7).open().unwrap();
        let all = whole.build(71, &|_| {});
        assert!(seen.into_iter().chain(holes).chain([ahead]).eq(all));
    }
}
