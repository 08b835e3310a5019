//! Transactions that are tried together.

use std::collections::BTreeSet;

use ahash::AHashSet;
use parsec_protocol::{Change, ErrorCode, Footprint, Key, TxId, Value};

use super::overlay::{Layers, Overlay, Values, deploys};
use super::{
    Attempt, GUESSES_FEW, LEAN_ROUNDS_MAX, Memory, Out, RETRIALS_MAX, SWEEPS_MAX, Setting, Subject,
    Trials, Tried,
};

/// Why no footprint can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// Why, for people.
    pub detail: String,
}

/// How far a transaction is.
#[derive(Debug)]
enum Stage {
    /// It has to be tried, and so many trials did not gain much by guessing.
    Open(u32),
    Tried(Tried),
    /// Its footprint was known before, or its payload declared it. What it would do is tried only
    /// if others may depend on it.
    Known {
        footprint: Footprint,
        effect: Option<Tried>,
        /// What was counted to declare it.
        counter: Option<Key>,
    },
    Refused(Refusal),
}

impl Stage {
    fn known(footprint: Footprint, counter: Option<Key>) -> Self {
        Self::Known { footprint, effect: None, counter }
    }

    /// What the transaction would do, as far as that was tried.
    fn effect(&self) -> Option<&Tried> {
        match self {
            Self::Tried(tried) | Self::Known { effect: Some(tried), .. } => Some(tried),
            _ => None,
        }
    }
}

/// Transactions that are tried together, in the order in which they will run, and the values that
/// were fetched for them.
#[derive(Debug)]
pub struct Unit {
    subjects: Vec<Subject>,
    stages: Vec<Stage>,
    values: Values,
    bytes: usize,
}

impl Unit {
    /// A unit of which nothing was tried.
    #[must_use]
    pub fn new(mut subjects: Vec<Subject>) -> Self {
        let stage = |subject: &mut Subject| match subject.known.take() {
            Some(footprint) => Stage::known(footprint, None),
            None => Stage::Open(0),
        };
        let stages = subjects.iter_mut().map(stage).collect();
        Self { subjects, stages, values: Values::default(), bytes: 0 }
    }

    /// The transactions.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// The indices of transactions that have to be tried.
    #[must_use]
    pub fn open(&self) -> Vec<usize> {
        let open = |index: &usize| matches!(self.stages[*index], Stage::Open(_));
        (0..self.stages.len()).filter(open).collect()
    }

    /// Adds a value that was fetched.
    pub fn learn(&mut self, key: Key, value: Option<Value>) {
        self.bytes += key.encoded().len() + value.as_ref().map_or(0, Value::len);
        self.values.insert(key, value);
    }

    /// Whether the value of a key was fetched.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.values.contains_key(key)
    }

    /// Bytes of keys and values that were fetched.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tries one transaction over the values that are at hand.
    #[must_use]
    pub fn attempt(
        &self,
        index: usize,
        trials: &Trials,
        setting: &Setting,
        memory: &dyn Memory,
    ) -> Attempt {
        let lean = match self.stages[index] {
            Stage::Open(lean) => lean,
            _ => 0,
        };
        let source = Layers { values: &self.values, memory, overlay: None };
        let speculate = lean < LEAN_ROUNDS_MAX;
        let subject = &self.subjects[index];
        let declared = subject.declares.then(|| trials.declared(subject, &source)).flatten();
        Attempt(
            declared
                .unwrap_or_else(|| trials.attempt(subject, setting, memory, &source, speculate)),
        )
    }

    /// Takes what came out of a trial. Adds to `wanted` what has to be fetched to go on.
    pub fn take(&mut self, index: usize, attempt: Attempt, wanted: &mut BTreeSet<Key>) {
        let Stage::Open(lean) = &mut self.stages[index] else { return };
        self.stages[index] = match attempt.0 {
            Out::Tried(tried) => Stage::Tried(tried),
            Out::Declared(footprint, counter) => Stage::known(footprint, counter),
            Out::Refused(refusal) => Stage::Refused(refusal),
            Out::Needs(keys, _) => {
                *lean += u32::from(keys.len() <= GUESSES_FEW);
                return wanted.extend(keys);
            }
        };
    }

    /// Whether any transaction declared what depends on how many come before it.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::Known { counter: Some(_), .. }))
    }

    /// Declares anew, in order, what depends on how many come before, and hands to `announce` who
    /// counts what: the next one finds it counted.
    pub fn count(
        &mut self,
        trials: &Trials,
        memory: &dyn Memory,
        mut announce: impl FnMut(TxId, &Key),
    ) {
        for (stage, subject) in self.stages.iter_mut().zip(&self.subjects) {
            let Stage::Known { footprint, counter: Some(counter), .. } = stage else { continue };
            let source = Layers { values: &self.values, memory, overlay: None };
            // What would need more values stays as it was.
            if let Some(Out::Declared(counted, _)) = trials.declared(subject, &source) {
                *footprint = counted;
            }
            announce(subject.id, counter);
        }
    }

    /// Refuses a transaction that is still open.
    pub fn refuse(&mut self, index: usize, refusal: Refusal) {
        if let Stage::Open(_) = self.stages[index] {
            self.stages[index] = Stage::Refused(refusal);
        }
    }

    /// Tries again, in order, what earlier transactions of the unit may send another way, over
    /// what those would do. Returns what has to be fetched to do so; then it is to be called again.
    ///
    /// Once `may_go_on` says no, nothing more is tried, and what was found before stands.
    pub fn in_order(
        &mut self,
        trials: &Trials,
        setting: &Setting,
        memory: &dyn Memory,
        may_go_on: &dyn Fn() -> bool,
    ) -> BTreeSet<Key> {
        let Some(mut supports) = self.supports() else { return BTreeSet::new() };
        let mut wanted = self.sweep(&supports, trials, setting, memory, may_go_on);
        for _ in 1..SWEEPS_MAX {
            // Who goes another way may come to depend on others of those before it.
            let Some(now) = self.supports().filter(|now| !now.is_subset(&supports)) else { break };
            supports.extend(now);
            wanted.extend(self.sweep(&supports, trials, setting, memory, may_go_on));
        }
        wanted
    }

    /// Goes through the unit in order once.
    fn sweep(
        &mut self,
        supports: &AHashSet<usize>,
        trials: &Trials,
        setting: &Setting,
        memory: &dyn Memory,
        may_go_on: &dyn Fn() -> bool,
    ) -> BTreeSet<Key> {
        let mut wanted = BTreeSet::new();
        let mut overlay = Overlay::default();
        let mut left = RETRIALS_MAX;
        for index in 0..self.stages.len() {
            let subject = &self.subjects[index];
            let again = match &self.stages[index] {
                Stage::Tried(tried) => overlay.may_divert(tried, subject.erratic),
                Stage::Known { .. } => supports.contains(&index),
                Stage::Open(_) | Stage::Refused(_) => false,
            };
            if again && left > 0 && may_go_on() {
                left -= 1;
                let source = Layers { values: &self.values, memory, overlay: Some(&overlay) };
                let out = trials.attempt(subject, setting, memory, &source, true);
                self.retake(index, out, &mut wanted);
            }
            if let Some(tried) = self.stages[index].effect() {
                overlay.push(tried);
            }
        }
        wanted
    }

    /// Takes what came out of another trial. One that ends worse than the one before changes
    /// nothing: a footprint is there already. What it does if values are as was guessed is what those
    /// behind it see until they are fetched: or else each round would find out about one more of them.
    fn retake(&mut self, index: usize, out: Out, wanted: &mut BTreeSet<Key>) {
        let again = match out {
            Out::Tried(again) => Some(again),
            Out::Needs(keys, guessed) => {
                wanted.extend(keys);
                guessed
            }
            Out::Declared(..) | Out::Refused(_) => None,
        };
        match (&mut self.stages[index], again) {
            (Stage::Tried(tried), Some(again)) => *tried = again,
            (Stage::Known { effect, .. }, Some(again)) => *effect = Some(again),
            _ => {}
        }
    }

    /// The transactions with known footprints whose effect others may depend on; `None` if no
    /// transaction depends on another in a way that matters.
    fn supports(&self) -> Option<AHashSet<usize>> {
        // What is read by later transactions that may go another way when it changes.
        let mut read = AHashSet::new();
        let mut supports = AHashSet::new();
        let mut deploying = false;
        let all = self.stages.iter().zip(&self.subjects).enumerate();
        for (index, (stage, subject)) in all.rev() {
            let footprint = match stage {
                Stage::Tried(tried) => {
                    deploying |= deploys(tried);
                    Some(&tried.footprint).filter(|_| subject.erratic || !tried.committed)
                }
                Stage::Known { footprint, .. } => {
                    let mut changed = footprint.accesses().iter().filter(|a| a.mode.may_change());
                    let support = changed.any(|a| a.key.is_replicated() || read.contains(&a.key));
                    supports.extend(support.then_some(index));
                    Some(footprint).filter(|_| support)
                }
                Stage::Open(_) | Stage::Refused(_) => None,
            };
            let accesses = footprint.into_iter().flat_map(Footprint::accesses);
            read.extend(accesses.filter(|a| a.mode.needs_value()).map(|access| &access.key));
        }
        let depend =
            deploying || !supports.is_empty() || (!read.is_empty() && self.stages.len() > 1);
        depend.then_some(supports)
    }

    /// What deployments among the transactions would bring into being: code and sources, and all
    /// that they write beside it.
    pub fn deployments(&self) -> impl Iterator<Item = (&Key, &Value)> {
        let effects = self.stages.iter().filter_map(Stage::effect);
        let changes = effects.filter(|tried| deploys(tried)).flat_map(|tried| &tried.changes);
        changes.filter_map(|(key, change)| match change {
            Change::Put(value) => Some((key, value)),
            _ => None,
        })
    }

    /// Looks for values where there were none, and reopens the transactions that read them.
    /// Returns whether there are any.
    pub fn fill(&mut self, find: impl Fn(&Key) -> Option<Value>) -> bool {
        let values = &mut self.values;
        let mut filled = AHashSet::new();
        for stage in &mut self.stages {
            let Stage::Tried(tried) = stage else { continue };
            let mut reopen = false;
            for access in tried.footprint.accesses().iter().filter(|a| a.mode.needs_value()) {
                let Some(value @ None) = values.get_mut(&access.key) else {
                    reopen |= filled.contains(&access.key);
                    continue;
                };
                if let Some(found) = find(&access.key) {
                    *value = Some(found);
                    filled.insert(access.key.clone());
                    reopen = true;
                }
            }
            if reopen {
                *stage = Stage::Open(0);
            }
        }
        !filled.is_empty()
    }

    /// The transactions whose footprints were found by a trial that committed, with these.
    pub fn found(&self) -> impl Iterator<Item = (&Subject, &Footprint)> {
        self.subjects.iter().zip(&self.stages).filter_map(|(subject, stage)| match stage {
            Stage::Tried(tried) if tried.committed => Some((subject, &tried.footprint)),
            _ => None,
        })
    }

    /// What was found of each transaction, in their order; `None` for what is still open.
    #[must_use]
    pub fn finish(self) -> Vec<Option<Result<Footprint, Refusal>>> {
        let finish = |stage| match stage {
            Stage::Open(_) => None,
            Stage::Tried(tried) => Some(Ok(tried.footprint)),
            Stage::Known { footprint, .. } => Some(Ok(footprint)),
            Stage::Refused(refusal) => Some(Err(refusal)),
        };
        self.stages.into_iter().map(finish).collect()
    }
}
