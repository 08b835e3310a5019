//! Trials: running transactions against a snapshot to see what they touch (reconnaissance).
//!
//! A [`Unit`] holds transactions that were submitted together, and the values that were fetched
//! for them so far. It is driven in rounds by whoever can fetch values:
//!
//! ```text
//!  attempt each open one, in parallel ─▶ take what came out ─▶ fetch what is wanted ─┐
//!          ▲                                                                         │
//!          └─────────────────────────────────────────────────────────────────────────┘
//!  then once more in order, those that earlier ones of the unit may have led astray
//! ```
//!
//! A trial does not end at the first value that is not at hand: it goes on with a guess, to find
//! what else it will need. So independent keys are fetched in one round, and only what truly
//! depends on a value waits for it. **Invariant:** the run that counts guessed nothing.
//!
//! Everything here is a hint for the order: execution verifies every access, and what a trial got
//! wrong is a stray.

mod overlay;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use parsec_protocol::Value;
use parsec_protocol::{Change, EpochRecord, ErrorCode, Footprint, Key, Outcome, RuntimeId, TxId};

pub use unit::{Refusal, Unit};

use crate::access::{Ahead, Recorder, Source};
use crate::{Call, Declared, Interrupt, Runtimes, Sessions};

/// Most values that one run may guess. With more, it ends, and goes on when it has those.
pub const GUESSES_MAX: usize = 256;
/// A run that guesses no more values than this did not gain much by it.
const GUESSES_FEW: usize = 3;
/// Runs of a transaction that may gain so little. After that, each of its trials ends at the first
/// value that is not at hand: it is chasing something, and guessing does not help.
const LEAN_ROUNDS_MAX: u32 = 16;
/// Most transactions of a unit that are tried again because of earlier ones, each time.
pub const RETRIALS_MAX: usize = 1_024;
/// Times that a unit is gone through in order with the values that are at hand.
const SWEEPS_MAX: usize = 8;

/// A transaction of a [`Unit`].
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its id.
    pub id: TxId,
    /// Which runtime executes it.
    pub runtime: RuntimeId,
    /// Who sent it, as authenticated.
    pub sender: Bytes,
    /// What it does.
    pub payload: Bytes,
    /// Its footprint, if it is known: then it is only of interest for what it does to others.
    pub known: Option<Footprint>,
    /// Whether its payload may declare a footprint, given values.
    pub declares: bool,
    /// Whether what it touches is likely to depend on values that others write.
    pub erratic: bool,
}

/// When trials take place: the epoch that may come next.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The epoch's record, as far as it can be told.
    pub epoch: EpochRecord,
    /// What entropy is taken from.
    pub entropy: [u8; 32],
}

/// What is known of values beside those that were fetched for a unit.
pub trait Memory: Sync {
    /// The value of a replicated key. It may be stale: these rarely change.
    fn replicated(&self, key: &Key) -> Option<Value>;

    /// What any key had not long ago: good enough to guess with.
    fn last_known(&self, key: &Key) -> Option<Value>;

    /// See [`Source::ahead`].
    fn ahead(&self, key: &Key) -> Ahead {
        let _ = key;
        Ahead::default()
    }
}

/// A trial that came to an end.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) footprint: Footprint,
    pub(crate) changes: Vec<(Key, Change)>,
    pub(crate) committed: bool,
}

/// What came out of a trial.
#[derive(Debug)]
pub struct Attempt(Out);

#[derive(Debug)]
enum Out {
    Tried(Tried),
    /// The payload told, with the values at hand; and what was counted for that.
    Declared(Footprint, Option<Key>),
    /// It can't be told without these values, or what it would do if they are as was guessed.
    Needs(BTreeSet<Key>, Option<Tried>),
    Refused(Refusal),
}

impl Out {
    /// What it would do, if that takes effect.
    fn committed(self) -> Option<Tried> {
        match self {
            Self::Tried(tried) if tried.committed => Some(tried),
            _ => None,
        }
    }
}

/// Runs trials, on many threads.
pub struct Trials {
    runtimes: Runtimes,
    /// Sessions that no thread uses at the moment.
    idle: Mutex<Vec<Sessions>>,
}

/// How one run of a trial ended.
struct Run {
    out: Out,
    missing: BTreeSet<Key>,
}

impl Trials {
    /// Trials of transactions of these runtimes.
    #[must_use]
    pub fn new(runtimes: Runtimes) -> Self {
        Self { runtimes, idle: Mutex::default() }
    }

    /// The footprint that the payload declares, given what `source` has; `None` if it has to be
    /// tried.
    fn declared(&self, subject: &Subject, source: &dyn Source) -> Option<Out> {
        let Subject { runtime, sender, payload, .. } = subject;
        match self.runtimes.get(*runtime)?.declared(sender, payload, source) {
            Declared::Nothing => None,
            Declared::Needs(keys) => Some(Out::Needs(keys.into_iter().collect(), None)),
            Declared::Footprint(footprint) => Some(Out::Declared(footprint, None)),
            Declared::Counting { footprint, counter } => {
                Some(Out::Declared(footprint, Some(counter)))
            }
        }
    }

    /// Tries a transaction over what `source` has.
    fn attempt<S: Source>(
        &self,
        subject: &Subject,
        setting: &Setting,
        memory: &dyn Memory,
        source: &S,
        speculate: bool,
    ) -> Out {
        if !speculate {
            return self.run(subject, setting, Recorder::new(source)).out;
        }
        let guess = |key: &Key| {
            // Not of code, which sessions keep, and whose absence is as good a guess as any.
            let free = || self.runtimes.get(subject.runtime).filter(|_| !key.is_replicated());
            memory.last_known(key).or_else(|| free()?.guess(key))
        };
        let hopeful = Recorder::speculating(source, &guess, GUESSES_MAX);
        let Run { out, mut missing } = self.run(subject, setting, hopeful);
        if missing.is_empty() {
            return out;
        }
        let mut guessed = out.committed();
        if guessed.is_none() {
            // What was guessed led nowhere. Where there was nothing before, it goes another way.
            let guess = |key: &Key| memory.last_known(key);
            let plain = Recorder::speculating(source, &guess, GUESSES_MAX);
            let Run { out, missing: others } = self.run(subject, setting, plain);
            missing.extend(others);
            guessed = out.committed();
        }
        Out::Needs(missing, guessed)
    }

    fn run<S: Source>(
        &self,
        subject: &Subject,
        setting: &Setting,
        mut recorder: Recorder<'_, S>,
    ) -> Run {
        let call = Call {
            id: &subject.id,
            sender: &subject.sender,
            payload: &subject.payload,
            epoch: &setting.epoch,
            entropy: &setting.entropy,
            trial: true,
        };
        let mut sessions = self.sessions();
        // A runtime that panics here, over true values, would panic at every executor: the
        // transaction must not get there. The sessions it used are not used again.
        let executed = catch_unwind(AssertUnwindSafe(|| {
            sessions.execute(subject.runtime, &call, &mut recorder)
        }));
        let mut missing = recorder.missing();
        let out = match executed {
            Err(_) => {
                tracing::error!(id = %subject.id, "a runtime panicked in a trial");
                Out::Refused(refused(ErrorCode::Unsupported, "its runtime failed"))
            }
            Ok(result) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sessions);
                match result {
                    Ok(done) => tried(recorder, done.outcome == Outcome::Committed),
                    Err(Interrupt::Missing(key)) => {
                        missing.insert(key);
                        Out::Needs(missing.clone(), None)
                    }
                    Err(Interrupt::Stray(access)) => {
                        let detail = format!("its runtime strayed in a trial, at {}", access.key);
                        Out::Refused(refused(ErrorCode::Unsupported, &detail))
                    }
                    Err(Interrupt::Fatal(reason)) if recorder.is_overfull() => {
                        Out::Refused(refused(ErrorCode::TooLarge, &reason))
                    }
                    Err(Interrupt::Fatal(reason)) => {
                        Out::Refused(refused(ErrorCode::Unsupported, &reason))
                    }
                }
            }
        };
        Run { out, missing }
    }

    fn sessions(&self) -> Sessions {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.runtimes.sessions())
    }
}

fn tried<S: Source>(recorder: Recorder<'_, S>, committed: bool) -> Out {
    match recorder.finish() {
        Ok(recording) => Out::Tried(Tried {
            footprint: recording.footprint,
            changes: recording.changes,
            committed,
        }),
        Err(error) => Out::Refused(refused(ErrorCode::TooLarge, &error.to_string())),
    }
}

fn refused(code: ErrorCode, detail: &str) -> Refusal {
    Refusal { code, detail: format!("no footprint was found: {detail}") }
}
