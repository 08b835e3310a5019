//! Learning how footprints follow from calls, for any runtime whose keys can be told by formulas.
//!
//! Calls are told apart by their *entry point*: a contract and its function. Most contracts touch
//! the same fields in each call of one: a token's `transfer` touches the balances of caller and
//! payee. The keys of the first footprint of an entry point are explained by every formula over
//! the call that gives them; each further call rules out formulas that don't fit. When
//! [`SAMPLES_MIN`] calls in a row bring nothing new, the remaining formulas predict.
//!
//! A key need not be touched by every call: what at least a quarter of the calls touch is
//! predicted, since a key too many costs less than a stray. What is rarer is left to straying: one
//! call in hundreds that goes another way, through a key that is hot, must not make all others
//! wait for that key. One prediction in [`AUDIT_EACH`] is left to a trial, at first more of them, to
//! see whether it still holds. An entry point that strays too often is learnt anew, and after some times rests: its
//! calls are tried, and nothing is learnt from them for a good while.

use std::hash::Hash;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use ahash::AHashMap;
use bytes::Bytes;
use parsec_protocol::{Access, Footprint, Key, Mode};

use super::Predictor;

/// Calls of one entry point in a row that must bring nothing new before it is predicted.
const SAMPLES_MIN: u32 = 3;
/// Of so many predictions, one is left to a trial.
const AUDIT_EACH: u32 = 1_024;
/// So many times as often, for as many predictions.
const AUDIT_EAGERLY: u32 = 16;
/// Calls that may leave a key untouched before it is asked how many do touch it.
const DOUBT: u32 = 8;
/// Entry points in one generation of two; see [`Generations`].
const ENTRY_POINTS_MAX: usize = 4_096;
/// Footprints with more keys are not learnt.
const KEYS_MAX: usize = 32;
/// Most formulas that are kept to explain one key, the constant one included.
const FORMULAS_MAX: usize = 6;
/// Times that an entry point may bring something new while it is learnt.
const SURPRISES_MAX: u32 = 8;
/// Strays that are tolerated without looking at how many predictions there were.
const STRAYS_FREE: u32 = 4;
/// Of so many predictions, one may stray.
const STRAYS_ONE_IN: u32 = 32;
/// Times that an entry point is learnt anew before it rests.
const DEMOTIONS_MAX: u32 = 4;
/// Predictions after which earlier demotions are forgotten.
const PROVEN: u32 = 16_384;
/// Trials that a first rest lasts. Each further one lasts twice as long, up to a limit.
const RESTING_TRIALS: u32 = 1_000;
/// How often a rest may double.
const RESTS_DOUBLE_MAX: u32 = 5;
/// Trials for which an entry point that strayed though it was not predicted counts as erratic.
const ERRATIC_TRIALS: u32 = 64;

/// What a runtime's calls are, as far as formulas see them.
pub(crate) trait Calls: 'static {
    /// What tells entry points apart.
    type Id: Clone + Eq + Hash + Send + Sync;
    /// A call.
    type Call;
    /// How a key follows from a call.
    type Formula: Clone + PartialEq + Send + Sync;
    /// Who calls.
    type Origin: Clone + PartialEq + Send + Sync;

    /// The call of a payload, if it is one that can be predicted.
    fn call(sender: &[u8], payload: &Bytes) -> Option<Self::Call>;

    /// The entry point that is called.
    fn id(call: &Self::Call) -> Self::Id;

    /// A more general entry point that serves this call, too, as long as nothing is known of its
    /// own.
    fn general(call: &Self::Call) -> Option<Self::Id>;

    /// Whether a footprint of the call is as its general entry point has it.
    fn is_general(footprint: &Footprint) -> bool;

    /// Who calls, if formulas may depend on it.
    fn origin(call: &Self::Call) -> Option<Self::Origin>;

    /// For each key, formulas that give it in this call; the most general first, and a constant
    /// one last.
    fn explain(call: &Self::Call, keys: &[&Key]) -> Vec<Vec<Self::Formula>>;

    /// The key that a formula gives, if it gives one.
    fn key(formula: &Self::Formula, call: &Self::Call) -> Option<Key>;
}

/// A predictor that learns.
pub(crate) struct Learner<C: Calls> {
    generations: RwLock<Generations<C>>,
}

impl<C: Calls> Default for Learner<C> {
    fn default() -> Self {
        let (newer, older) = (AHashMap::new(), AHashMap::new());
        Self { generations: RwLock::new(Generations { newer, older }) }
    }
}

/// Entry points in two generations: when the newer one is full, the older one is dropped, with
/// what was not learnt from since. An entry point in use is audited, so that it stays.
struct Generations<C: Calls> {
    newer: AHashMap<C::Id, EntryPoint<C>>,
    older: AHashMap<C::Id, EntryPoint<C>>,
}

impl<C: Calls> Generations<C> {
    fn get(&self, id: &C::Id) -> Option<&EntryPoint<C>> {
        self.newer.get(id).or_else(|| self.older.get(id))
    }

    /// The entry point that serves a call.
    fn serving(&self, call: &C::Call) -> Option<&EntryPoint<C>> {
        self.get(&C::id(call)).or_else(|| self.get(&C::general(call)?))
    }

    fn entry(&mut self, id: C::Id) -> &mut EntryPoint<C> {
        if !self.newer.contains_key(&id) {
            let known = self.older.remove(&id).unwrap_or_default();
            if self.newer.len() >= ENTRY_POINTS_MAX {
                self.older = std::mem::take(&mut self.newer);
            }
            self.newer.insert(id.clone(), known);
        }
        self.newer.entry(id).or_default()
    }
}

/// Who has called an entry point so far.
#[derive(Debug, Clone, PartialEq)]
enum Origins<O> {
    Nobody,
    /// Formulas can't tell this one from a constant, so it alone is predicted for.
    One(O),
    Many,
}

/// A key of footprints, explained.
struct Explained<F> {
    /// What gave the key in every call that touched it.
    formulas: Vec<F>,
    mode: Mode,
    /// Calls that touched it, and that did not.
    hits: u32,
    misses: u32,
}

impl<F> Explained<F> {
    /// Whether enough calls touch it to predict it.
    fn is_usual(&self) -> bool {
        self.misses <= DOUBT + 3 * self.hits
    }
}

struct EntryPoint<C: Calls> {
    keys: Vec<Explained<C::Formula>>,
    origins: Origins<C::Origin>,
    /// Calls in a row that brought nothing new.
    samples: u32,
    surprises: u32,
    predictions: AtomicU32,
    strays: u32,
    demotions: u32,
    /// How many trials to let pass before learning begins again.
    resting: u32,
    rests: u32,
    erratic: u32,
}

impl<C: Calls> Default for EntryPoint<C> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            origins: Origins::Nobody,
            samples: 0,
            surprises: 0,
            predictions: AtomicU32::new(0),
            strays: 0,
            demotions: 0,
            resting: 0,
            rests: 0,
            erratic: 0,
        }
    }
}

impl<C: Calls> Predictor for Learner<C> {
    fn predict(&self, sender: &[u8], payload: &Bytes) -> Option<Footprint> {
        let call = C::call(sender, payload)?;
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        let entry_point = generations.serving(&call)?;
        let predicted = entry_point.predict(&call)?;
        let number = entry_point.predictions.fetch_add(1, Relaxed);
        (!is_audited(number)).then_some(predicted)
    }

    fn learn(&self, sender: &[u8], payload: &Bytes, footprint: &Footprint) {
        let Some(call) = C::call(sender, payload) else { return };
        let (id, unexplained) = {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            let own = C::id(&call);
            let id = match C::general(&call) {
                Some(general) if C::is_general(footprint) && generations.get(&own).is_none() => {
                    general
                }
                _ => own,
            };
            let unexplained = match generations.get(&id) {
                Some(entry_point) => entry_point.unexplained(&call, footprint),
                None => footprint.accesses().iter().collect(),
            };
            (id, unexplained)
        };
        // Explaining is what takes time: nobody has to wait for it.
        let keys: Vec<&Key> = unexplained.iter().map(|access| &access.key).collect();
        let is_learnable = footprint.accesses().len() <= KEYS_MAX;
        let explained = if is_learnable { C::explain(&call, &keys) } else { Vec::new() };
        let explained = unexplained.into_iter().zip(explained);
        let new = explained.map(|(access, mut formulas)| {
            // The constant one, which is last, stays.
            let last = formulas.len().saturating_sub(1);
            formulas.drain(last.min(FORMULAS_MAX - 1)..last);
            Explained { formulas, mode: access.mode, hits: 1, misses: 0 }
        });
        let new: Vec<_> = new.collect();
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let entry_point = generations.entry(id);
        match is_learnable {
            true => entry_point.learn(&call, footprint, new),
            false => entry_point.rest(),
        }
    }

    fn strayed(&self, sender: &[u8], payload: &Bytes, footprint: &Footprint) {
        let Some(call) = C::call(sender, payload) else { return };
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(general) = C::general(&call) {
            generations.entry(general).strayed(&call, footprint);
        }
        // From now on, it has an entry point of its own.
        generations.entry(C::id(&call)).strayed(&call, footprint);
    }

    fn is_erratic(&self, sender: &[u8], payload: &Bytes) -> bool {
        let Some(call) = C::call(sender, payload) else { return false };
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        let entry_point = generations.serving(&call);
        entry_point.is_some_and(|each| each.erratic > 0 || each.resting > 0)
    }
}

/// Whether the prediction with that number is left to a trial. Those that are lie scattered, so
/// that no pattern in the calls hides from them.
fn is_audited(number: u32) -> bool {
    let each = if number < AUDIT_EACH { AUDIT_EACH / AUDIT_EAGERLY } else { AUDIT_EACH };
    number.wrapping_mul(0x9e37_79b1).wrapping_add(u32::MAX / 2) < u32::MAX / each
}

impl<C: Calls> EntryPoint<C> {
    fn is_ready(&self) -> bool {
        self.samples >= SAMPLES_MIN && self.resting == 0
    }

    fn predict(&self, call: &C::Call) -> Option<Footprint> {
        if !self.is_ready() {
            return None;
        }
        if let Origins::One(one) = &self.origins
            && C::origin(call).as_ref() != Some(one)
        {
            return None;
        }
        let mut accesses = Vec::with_capacity(self.keys.len());
        for explained in self.keys.iter().filter(|explained| explained.is_usual()) {
            let key = C::key(explained.formulas.first()?, call)?;
            accesses.push(Access { key, mode: explained.mode });
        }
        Footprint::new(accesses).ok()
    }

    /// The accesses that no explanation gives.
    fn unexplained<'a>(&self, call: &C::Call, footprint: &'a Footprint) -> Vec<&'a Access> {
        let mut covered = vec![false; footprint.accesses().len()];
        for explained in &self.keys {
            if let Some(index) = first_hit::<C>(&explained.formulas, call, footprint) {
                covered[index] = true;
            }
        }
        let all = footprint.accesses().iter().zip(covered);
        all.filter(|(_, covered)| !covered).map(|(access, _)| access).collect()
    }

    /// Takes a footprint, with explanations of what is not explained here.
    fn learn(&mut self, call: &C::Call, footprint: &Footprint, new: Vec<Explained<C::Formula>>) {
        if self.resting > 0 {
            self.resting -= 1;
            return;
        }
        self.erratic = self.erratic.saturating_sub(1);
        self.confirm(call, footprint);
        self.meet(C::origin(call));
        if new.is_empty() || self.samples == 0 {
            self.samples = self.samples.saturating_add(1);
        } else if self.is_ready() {
            // An audit went another way. If that is more than a rare case, others will.
            let doubtful = |each| Explained { misses: DOUBT + 4, ..each };
            self.keys.extend(new.into_iter().map(doubtful));
            return self.bound();
        } else {
            self.samples = 1;
            self.surprises += 1;
        }
        self.keys.extend(new);
        if self.is_ready() {
            self.surprises = 0;
        }
        self.bound();
    }

    /// Rules out formulas that don't fit, and counts which keys were touched.
    fn confirm(&mut self, call: &C::Call, footprint: &Footprint) {
        for explained in &mut self.keys {
            let Some(index) = first_hit::<C>(&explained.formulas, call, footprint) else {
                explained.misses += 1;
                continue;
            };
            explained.formulas.retain(|formula| {
                C::key(formula, call).is_some_and(|key| footprint.find(&key).is_some())
            });
            explained.mode = explained.mode.union(footprint.accesses()[index].mode);
            explained.hits += 1;
            if explained.hits + explained.misses > AUDIT_EACH {
                (explained.hits, explained.misses) = (explained.hits / 2, explained.misses / 2);
            }
        }
    }

    fn meet(&mut self, origin: Option<C::Origin>) {
        self.origins = match (&self.origins, origin) {
            (Origins::Nobody, Some(origin)) => Origins::One(origin),
            (Origins::One(one), Some(origin)) if *one == origin => return,
            _ => Origins::Many,
        };
    }

    /// Gives up what can't be learnt.
    fn bound(&mut self) {
        if self.keys.len() > KEYS_MAX {
            self.keys.retain(Explained::is_usual);
        }
        if self.keys.len() > KEYS_MAX || self.surprises > SURPRISES_MAX {
            self.rest();
        }
    }

    fn strayed(&mut self, call: &C::Call, footprint: &Footprint) {
        if self.resting > 0 {
            return;
        }
        if self.predict(call).as_ref() != Some(footprint) {
            self.erratic = ERRATIC_TRIALS;
            return;
        }
        self.strays += 1;
        let predictions = self.predictions.load(Relaxed);
        if self.strays > STRAYS_FREE + predictions / STRAYS_ONE_IN {
            self.demote(predictions);
        }
    }

    /// Learns anew, beginning with what is known.
    fn demote(&mut self, predictions: u32) {
        self.demotions = if predictions > PROVEN { 1 } else { self.demotions + 1 };
        if self.demotions > DEMOTIONS_MAX {
            return self.rest();
        }
        self.keys.retain(Explained::is_usual);
        for explained in &mut self.keys {
            (explained.hits, explained.misses) = (1, 0);
        }
        (self.samples, self.strays) = (1, 0);
        self.predictions.store(0, Relaxed);
    }

    fn rest(&mut self) {
        let resting = RESTING_TRIALS << self.rests.min(RESTS_DOUBLE_MAX);
        *self = Self { resting, rests: self.rests + 1, ..Self::default() };
    }
}

/// The index in the footprint of the key that the first formula gives that gives one of its keys.
fn first_hit<C: Calls>(
    formulas: &[C::Formula],
    call: &C::Call,
    footprint: &Footprint,
) -> Option<usize> {
    formulas.iter().find_map(|formula| footprint.find(&C::key(formula, call)?))
}

#[cfg(test)]
mod tests;
