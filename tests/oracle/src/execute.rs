//! What one transaction does, the plain way.
//!
//! Executors hold a transaction to its footprint with an
//! [`Execution`](parsec_runtimes::Execution). This is the same rules once more, over the whole
//! state: a defect there must not be one here.

use std::collections::BTreeMap;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, Delta, EpochRecord, ErrorCode, Footprint, Key, Mode, Outcome, Position, Receipt, Value,
    message,
};
use parsec_runtimes::{Call, Done, Interrupt, Sessions, State};

/// What a transaction did to a key.
#[derive(Debug)]
enum Effect {
    Set(Option<Value>),
    Added(Delta),
}

impl Effect {
    /// The value after it.
    fn after(&self, before: Option<&Value>) -> Option<Value> {
        match self {
            Self::Set(value) => value.clone(),
            Self::Added(sum) => sum.apply(before),
        }
    }
}

/// The whole state, of which a transaction may touch its footprint.
struct Held<'a> {
    state: &'a BTreeMap<Key, Value>,
    footprint: &'a Footprint,
    effects: BTreeMap<Key, Effect>,
}

impl Held<'_> {
    /// The interrupt, unless the footprint has the key in one of the modes.
    fn check(&self, key: &Key, wanted: Mode) -> Result<(), Interrupt> {
        match self.covers(key, wanted) {
            true => Ok(()),
            false => Err(Interrupt::Stray(Access { key: key.clone(), mode: wanted })),
        }
    }
}

impl State for Held<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        self.check(key, Mode::Read)?;
        let before = self.state.get(key);
        Ok(self.effects.get(key).map_or_else(|| before.cloned(), |effect| effect.after(before)))
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        self.check(key, Mode::Write)?;
        self.effects.insert(key.clone(), Effect::Set(value));
        Ok(())
    }

    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        self.check(key, Mode::Add)?;
        let effect = match self.effects.remove(key) {
            None => Effect::Added(delta),
            Some(Effect::Added(sum)) => Effect::Added(sum.plus(delta)),
            Some(Effect::Set(value)) => Effect::Set(delta.apply(value.as_ref())),
        };
        self.effects.insert(key.clone(), effect);
        Ok(())
    }

    fn covers(&self, key: &Key, wanted: Mode) -> bool {
        let mut accesses = self.footprint.accesses().iter();
        let held = accesses.find(|access| access.key == *key).map(|access| access.mode);
        match wanted {
            Mode::Read => matches!(held, Some(Mode::Read | Mode::Write)),
            Mode::Add => matches!(held, Some(Mode::Add | Mode::Write)),
            Mode::Write => held == Some(Mode::Write),
        }
    }
}

/// Keys that a transaction leaves with another value than it found, with that value.
type Changes = Vec<(Key, Option<Value>)>;

/// Executes an entry over the whole state. Returns its receipt, and what it changes.
///
/// # Errors
/// Why a host would have to stop.
pub(crate) fn execute(
    sessions: &mut Sessions,
    state: &BTreeMap<Key, Value>,
    entry: &Entry,
    epoch: &EpochRecord,
    entropy: &[u8; 32],
    index: u32,
) -> Result<(Receipt, Changes), String> {
    let mut held = Held { state, footprint: &entry.footprint, effects: BTreeMap::new() };
    let done = match entry.expires {
        Some(last) if last < epoch.number => Done::invalid(ErrorCode::Expired, ""),
        _ => {
            let Entry { id, sender, payload, .. } = entry;
            let call = Call { id, sender, payload, epoch, entropy, trial: false };
            match sessions.execute(entry.runtime, &call, &mut held) {
                Ok(done) => done,
                Err(Interrupt::Stray(Access { key, mode })) => strayed(key, mode),
                Err(Interrupt::Missing(key)) => return Err(format!("{key} is not at hand")),
                Err(Interrupt::Fatal(reason)) => return Err(reason),
            }
        }
    };
    let leaves_nothing = matches!(done.outcome, Outcome::Strayed { .. } | Outcome::Invalid(_));
    let effects = if leaves_nothing { BTreeMap::new() } else { held.effects };
    let changes = effects.into_iter().filter_map(|(key, effect)| {
        let before = state.get(&key);
        let after = effect.after(before);
        (after.as_ref() != before).then_some((key, after))
    });
    let receipt = Receipt {
        id: entry.id,
        position: Position { epoch: epoch.number, index },
        attempt: entry.attempt,
        outcome: done.outcome,
        work: done.work,
        output: message::short_output(&done.output),
        events: done.events,
    };
    Ok((receipt, changes.collect()))
}

fn strayed(key: Key, mode: Mode) -> Done {
    let outcome = Outcome::Strayed { key, mode };
    Done { outcome, work: 0, output: Default::default(), events: Vec::new() }
}
