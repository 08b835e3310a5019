//! Processors in virtual time, and the stages that queue for them.
//!
//! A processor has slots: whole cores, or one that is slower than a core. Each stage of each node
//! on it has a lane: jobs that are done in order, so many of them at a time as the stage has
//! threads. As an operating system does with threads, the lane that has had the least time for each
//! of its threads goes first, one that had nothing to do for a while gets no credit for that, and a
//! job that takes long is put back after a slice, so that none waits for the whole of another.

use std::collections::{BTreeSet, VecDeque};

use crate::agenda::{MILLISECOND, Nanos};
use crate::costs::Stage;

/// How long a job runs before others get a turn, processor time.
const SLICE: Nanos = 2 * MILLISECOND;

/// A lane of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneId(usize);

/// A job: one that has not begun, or what is left of one that has.
#[derive(Debug)]
pub(crate) enum Job<T, E> {
    /// It has not begun, so that it is not known yet how long it takes.
    Fresh(T),
    /// It has begun. What it brings about at its end, and the processor time that it still takes.
    Begun(E, Nanos),
}

#[derive(Debug)]
struct Lane<T, E> {
    stage: Stage,
    jobs: VecDeque<Job<T, E>>,
    threads: usize,
    running: usize,
    /// Whether it is among those that wait for a turn.
    listed: bool,
    /// The time that each of its threads has had, or would have had if it had always had something
    /// to do.
    had: Nanos,
    /// Time for which its threads had slots so far.
    busy: Nanos,
}

/// A processor.
#[derive(Debug)]
pub(crate) struct Processor<T, E> {
    slots: usize,
    used: usize,
    /// Nanoseconds that a microsecond of processor time takes.
    pace: Nanos,
    lanes: Vec<Lane<T, E>>,
    /// Lanes that wait for a turn, by what they have had.
    turns: BTreeSet<(Nanos, usize)>,
    /// What the lane had that was last to get a turn.
    floor: Nanos,
}

impl<T, E> Processor<T, E> {
    /// A processor of so many cores; it may be less than one.
    pub(crate) fn new(cores: f64) -> Self {
        let slots = cores.ceil().clamp(1.0, 65_536.0);
        let pace = (1_000.0 * slots / cores.max(1e-6)).round();
        Self {
            slots: whole(slots),
            used: 0,
            pace: whole(pace) as Nanos,
            lanes: Vec::new(),
            turns: BTreeSet::new(),
            floor: 0,
        }
    }

    /// Adds a stage with so many threads.
    pub(crate) fn lane(&mut self, stage: Stage, threads: usize) -> LaneId {
        self.lanes.push(Lane {
            stage,
            jobs: VecDeque::new(),
            threads,
            running: 0,
            listed: false,
            had: 0,
            busy: 0,
        });
        LaneId(self.lanes.len() - 1)
    }

    pub(crate) fn stage(&self, lane: LaneId) -> Stage {
        self.lanes[lane.0].stage
    }

    /// Adds a job at the end of a lane.
    pub(crate) fn push(&mut self, lane: LaneId, task: T) {
        self.lanes[lane.0].jobs.push_back(Job::Fresh(task));
        self.list(lane.0);
    }

    /// The job whose turn it is, if a slot is free. It takes the slot.
    pub(crate) fn take(&mut self) -> Option<(LaneId, Job<T, E>)> {
        if self.used >= self.slots {
            return None;
        }
        let (had, index) = self.turns.pop_first()?;
        self.floor = self.floor.max(had);
        let lane = &mut self.lanes[index];
        lane.listed = false;
        let job = lane.jobs.pop_front()?;
        lane.running += 1;
        self.used += 1;
        self.list(index);
        Some((LaneId(index), job))
    }

    /// How long a job runs now: the time it takes, and the processor time of it that is left then.
    pub(crate) fn run(&mut self, lane: LaneId, left: Nanos) -> (Nanos, Nanos) {
        let slice = left.min(SLICE);
        let time = slice * self.pace / 1_000;
        let lane = &mut self.lanes[lane.0];
        lane.busy += time;
        lane.had += time / lane.threads.min(self.slots) as Nanos;
        (time, left - slice)
    }

    /// A job gives its slot back. If it is not done, the rest of it is next in its lane.
    pub(crate) fn give_back(&mut self, lane: LaneId, rest: Option<(E, Nanos)>) {
        self.used -= 1;
        let index = lane.0;
        let lane = &mut self.lanes[index];
        lane.running -= 1;
        if let Some((effect, left)) = rest {
            lane.jobs.push_front(Job::Begun(effect, left));
        }
        self.list(index);
    }

    /// A thread of a lane waits for a device.
    pub(crate) fn hold(&mut self, lane: LaneId) {
        self.lanes[lane.0].running += 1;
    }

    /// It does not wait any more.
    pub(crate) fn release(&mut self, lane: LaneId) {
        self.lanes[lane.0].running -= 1;
        self.list(lane.0);
    }

    /// Time for which the threads of a lane had slots so far.
    pub(crate) fn busy(&self, lane: LaneId) -> Nanos {
        self.lanes[lane.0].busy
    }

    /// How many slots there are, and how many threads a lane has.
    pub(crate) fn room(&self, lane: LaneId) -> (usize, usize) {
        (self.slots, self.lanes[lane.0].threads)
    }

    fn list(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.listed && !lane.jobs.is_empty() && lane.running < lane.threads {
            lane.listed = true;
            lane.had = lane.had.max(self.floor);
            self.turns.insert((lane.had, index));
        }
    }
}

/// A number that is whole and not negative already.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked by callers")]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs everything that a processor has; returns when each job ended.
    fn run(processor: &mut Processor<(char, Nanos), char>) -> Vec<(char, Nanos)> {
        let mut ended = Vec::new();
        let mut under_way: Vec<(Nanos, LaneId, char, Nanos)> = Vec::new();
        let mut now = 0;
        loop {
            while let Some((lane, job)) = processor.take() {
                let (name, left) = match job {
                    Job::Fresh((name, cost)) => (name, cost),
                    Job::Begun(name, left) => (name, left),
                };
                let (time, left) = processor.run(lane, left);
                under_way.push((now + time, lane, name, left));
            }
            under_way.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
            let Some((at, lane, name, left)) = under_way.pop() else { return ended };
            now = at;
            processor.give_back(lane, (left > 0).then_some((name, left)));
            if left == 0 {
                ended.push((name, now));
            }
        }
    }

    #[test]
    fn a_long_job_of_one_stage_does_not_hold_up_another_stage() {
        let mut processor = Processor::new(1.0);
        let long = processor.lane(Stage::Admission, 4);
        let short = processor.lane(Stage::Log, 1);
        processor.push(long, ('l', 10 * MILLISECOND));
        processor.push(short, ('s', MILLISECOND));
        assert_eq!(run(&mut processor), [('s', 3 * MILLISECOND), ('l', 11 * MILLISECOND)]);
        assert_eq!(processor.busy(long), 10 * MILLISECOND);
    }

    #[test]
    fn a_lane_uses_no_more_cores_than_it_has_threads() {
        for (threads, end) in [(1, 2), (2, 1)] {
            let mut processor = Processor::new(2.0);
            let lane = processor.lane(Stage::Execution, threads);
            processor.push(lane, ('a', MILLISECOND));
            processor.push(lane, ('b', MILLISECOND));
            assert_eq!(run(&mut processor)[1].1, end * MILLISECOND);
        }
    }

    #[test]
    fn short_jobs_get_as_much_time_as_long_ones() {
        let mut processor = Processor::new(1.0);
        let long = processor.lane(Stage::Execution, 1);
        let short = processor.lane(Stage::Storage, 1);
        (0..10).for_each(|_| processor.push(long, ('l', 1_000)));
        (0..100).for_each(|_| processor.push(short, ('s', 50)));
        let ended = run(&mut processor);
        let at = ended.iter().rposition(|(name, _)| *name == 's').unwrap();
        assert!((9_000..=11_000).contains(&ended[at].1), "{ended:?}");
    }

    #[test]
    fn part_of_a_core_is_a_slower_core() {
        for (cores, end) in [(0.08, 12_500), (1.5, 1_333)] {
            let mut processor = Processor::new(cores);
            let lane = processor.lane(Stage::Execution, 1);
            processor.push(lane, ('a', MILLISECOND));
            assert_eq!(run(&mut processor)[0].1 / 1_000, end);
        }
    }

    #[test]
    fn one_that_waits_for_a_device_leaves_its_core_to_others() {
        let mut processor = Processor::new(1.0);
        let log = processor.lane(Stage::Log, 1);
        let other = processor.lane(Stage::Ordering, 1);
        processor.hold(log);
        processor.push(log, ('l', 1));
        processor.push(other, ('o', 1));
        assert_eq!(run(&mut processor), [('o', 1)]);
        processor.release(log);
        assert_eq!(run(&mut processor), [('l', 1)]);
        assert_eq!((processor.busy(log), processor.room(log)), (1, (1, 1)));
    }
}
