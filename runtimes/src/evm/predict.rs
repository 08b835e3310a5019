//! Predicts footprints from those of earlier calls of the same entry point, without executing.
//!
//! An entry point is a called address and the first four bytes of the call data. Most contracts
//! touch the same fields in each call of one: a token's `transfer` touches the balances of caller
//! and payee, whose slots are Keccak-256 hashes of the two addresses and the place of the mapping
//! in the contract (Solidity's storage layout).
//!
//! Learning: the first recorded footprint of an entry point is explained, key by key, by every
//! [`Formula`] over the caller and the call data's words that gives the key. Each further one
//! rules out the formulas that don't fit it. When [`SAMPLES_MIN`] calls by different callers
//! agree, the remaining formulas predict. A wrong prediction is only a stray: the transaction has
//! no effect, and its entry point is learnt anew, and after some failures only a good while later.

use std::collections::BTreeMap;

use ahash::AHashMap;
use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256, keccak256};
use bytes::Bytes;
use parsec_protocol::{Access, Footprint, Key, Mode};

use super::{keys, payload};
use crate::Predictor;

/// Calls of one entry point that must agree before it is predicted.
const SAMPLES_MIN: u32 = 3;
/// Entry points that are remembered; with more, all are forgotten.
const ENTRY_POINTS_MAX: usize = 16_384;
/// Times in a row that an entry point is learnt anew before it is left to trials for a while.
const FAILURES_MAX: u32 = 8;
/// How many trials that while lasts.
const RESTING_TRIALS: u32 = 10_000;
/// Words of call data that formulas look at.
const WORDS_MAX: usize = 6;
/// Places of mappings in a contract that formulas look at.
const PLACES: u64 = 16;
/// Footprints with more keys are not learnt: explaining them costs too much.
const KEYS_MAX: usize = 48;

/// A 32-byte word that a call brings with it: the caller, or the n-th argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Caller,
    Callee,
    Argument(usize),
}

/// How a key follows from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Formula {
    /// The account record of an address.
    Account(Word),
    /// The code record of an address.
    CodeRecord(Word),
    /// A slot of a mapping of the callee at a place, of one key or two nested ones.
    Mapping { incarnation: u64, place: u64, outer: Word, inner: Option<Word> },
    /// Always this key.
    Constant(Key),
}

/// A key of a footprint, explained.
#[derive(Debug, Clone)]
struct Explained {
    /// What gives the key in every call so far; the most general first.
    formulas: Vec<Formula>,
    mode: Mode,
}

#[derive(Debug, Default)]
struct EntryPoint {
    keys: Vec<Explained>,
    samples: u32,
    failures: u32,
    /// How many trials to let pass before learning begins again.
    resting: u32,
    last_caller: Address,
}

/// What identifies an entry point: the called address (none for a mere transfer of Ether, which
/// is the same everywhere), and the selector.
type EntryPointId = (Option<Address>, [u8; 4]);

/// A call, as formulas see it.
struct CallWords<'a> {
    id: EntryPointId,
    caller: Address,
    callee: Address,
    arguments: &'a [u8],
}

/// Predicts the footprints of Ethereum transactions.
#[derive(Debug, Default)]
pub(super) struct EvmPredictor {
    /// Never iterated.
    entry_points: AHashMap<EntryPointId, EntryPoint>,
}

impl Predictor for EvmPredictor {
    fn predict(&self, sender: &[u8], payload: &Bytes) -> Option<Footprint> {
        let transaction = payload::decode(payload).ok()?;
        let call = call_words(sender, &transaction)?;
        let entry_point = self.entry_points.get(&call.id)?;
        if entry_point.samples < SAMPLES_MIN {
            return None;
        }
        let access = |explained: &Explained| {
            let key = explained.formulas.first()?.key(&call)?;
            Some(Access { key, mode: explained.mode })
        };
        let accesses: Option<Vec<_>> = entry_point.keys.iter().map(access).collect();
        Footprint::new(accesses?).ok()
    }

    fn learn(&mut self, sender: &[u8], payload: &Bytes, footprint: &Footprint) {
        let Ok(transaction) = payload::decode(payload) else { return };
        let Some(call) = call_words(sender, &transaction) else { return };
        if footprint.accesses().len() > KEYS_MAX {
            return;
        }
        if self.entry_points.len() >= ENTRY_POINTS_MAX && !self.entry_points.contains_key(&call.id)
        {
            self.entry_points.clear();
        }
        self.entry_points.entry(call.id).or_default().learn(&call, footprint);
    }

    fn forget(&mut self, sender: &[u8], payload: &Bytes) {
        let Ok(transaction) = payload::decode(payload) else { return };
        let Some(call) = call_words(sender, &transaction) else { return };
        if let Some(entry_point) = self.entry_points.get_mut(&call.id) {
            entry_point.fail();
        }
    }
}

impl EntryPoint {
    fn learn(&mut self, call: &CallWords<'_>, footprint: &Footprint) {
        if self.resting > 0 {
            self.resting -= 1;
            return;
        }
        if self.samples == 0 {
            let explain = |access: &Access| Explained {
                formulas: explain(call, &access.key),
                mode: access.mode,
            };
            self.keys = footprint.accesses().iter().map(explain).collect();
            self.samples = 1;
        } else if !self.agrees(call, footprint) {
            self.fail();
        } else if self.last_caller != call.caller || self.samples >= SAMPLES_MIN {
            self.samples = self.samples.saturating_add(1);
        }
        self.last_caller = call.caller;
    }

    /// Rules out formulas that don't fit `footprint`; whether the rest explains all of it.
    fn agrees(&mut self, call: &CallWords<'_>, footprint: &Footprint) -> bool {
        let mut seen: BTreeMap<Key, Mode> = BTreeMap::new();
        for explained in &mut self.keys {
            explained.formulas.retain(|formula| {
                formula.key(call).is_some_and(|key| footprint.find(&key).is_some())
            });
            let key = explained.formulas.first().and_then(|formula| formula.key(call));
            let Some(key) = key else { return false };
            let Some(index) = footprint.find(&key) else { return false };
            explained.mode = explained.mode.union(footprint.accesses()[index].mode);
            seen.insert(key, explained.mode);
        }
        footprint.accesses().iter().all(|access| seen.contains_key(&access.key))
    }

    fn fail(&mut self) {
        let failures = self.failures + 1;
        *self = match failures > FAILURES_MAX {
            true => Self { resting: RESTING_TRIALS, ..Self::default() },
            false => Self { failures, ..Self::default() },
        };
    }
}

impl Formula {
    fn key(&self, call: &CallWords<'_>) -> Option<Key> {
        match self {
            Self::Account(word) => Some(keys::account(&word.address(call)?)),
            Self::CodeRecord(word) => Some(keys::code_record(&word.address(call)?)),
            Self::Mapping { incarnation, place, outer, inner } => {
                let mut slot = mapping_slot(outer.word(call)?, B256::from(U256::from(*place)));
                if let Some(inner) = inner {
                    slot = mapping_slot(inner.word(call)?, slot);
                }
                Some(keys::storage(&call.callee, *incarnation, slot.into()))
            }
            Self::Constant(key) => Some(key.clone()),
        }
    }
}

impl Word {
    fn word(self, call: &CallWords<'_>) -> Option<B256> {
        match self {
            Self::Caller => Some(call.caller.into_word()),
            Self::Callee => Some(call.callee.into_word()),
            Self::Argument(n) => call.arguments.get(n * 32..n * 32 + 32).map(B256::from_slice),
        }
    }

    /// The word as an address, if it is one.
    fn address(self, call: &CallWords<'_>) -> Option<Address> {
        let word = self.word(call)?;
        word[..12].iter().all(|byte| *byte == 0).then(|| Address::from_word(word))
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Caller, Self::Callee].into_iter().chain((0..WORDS_MAX).map(Self::Argument))
    }
}

/// The slot of the entry `key` of a mapping at `place`.
fn mapping_slot(key: B256, place: B256) -> B256 {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(key.as_slice());
    bytes[32..].copy_from_slice(place.as_slice());
    keccak256(bytes)
}

/// Every formula that gives `key` in this call, the constant one last.
fn explain(call: &CallWords<'_>, key: &Key) -> Vec<Formula> {
    let mut formulas: Vec<Formula> = Word::all()
        .flat_map(|word| [Formula::Account(word), Formula::CodeRecord(word)])
        .filter(|formula| formula.key(call).as_ref() == Some(key))
        .collect();
    if let Some((address, incarnation, slot)) = keys::storage_parts(key)
        && address == call.callee
    {
        formulas.extend(explain_slot(call, incarnation, slot));
    }
    formulas.push(Formula::Constant(key.clone()));
    formulas
}

fn explain_slot(call: &CallWords<'_>, incarnation: u64, slot: B256) -> Vec<Formula> {
    let words: Vec<_> =
        Word::all().filter_map(|word| word.word(call).map(|value| (word, value))).collect();
    let mut formulas = Vec::new();
    for place in 0..PLACES {
        for (outer, outer_value) in &words {
            let first = mapping_slot(*outer_value, B256::from(U256::from(place)));
            let formula = |inner| Formula::Mapping { incarnation, place, outer: *outer, inner };
            if first == slot {
                formulas.push(formula(None));
            }
            let nested = words.iter().filter(|(_, value)| mapping_slot(*value, first) == slot);
            formulas.extend(nested.map(|(inner, _)| formula(Some(*inner))));
        }
    }
    formulas
}

fn call_words<'a>(
    sender: &[u8],
    transaction: &'a payload::SignedTransaction,
) -> Option<CallWords<'a>> {
    let callee = transaction.kind().into_to()?;
    let caller = Address::try_from(sender).ok()?;
    let input = transaction.input();
    let id = match input.first_chunk::<4>() {
        Some(selector) => (Some(callee), *selector),
        None if input.is_empty() => (None, [0; 4]),
        None => return None,
    };
    let arguments = input.get(4..).unwrap_or(&[]);
    Some(CallWords { id, caller, callee, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unsigned stand-in would not decode, so the tests work on the words of calls.
    fn call(caller: u8, arguments: &[u8]) -> CallWords<'_> {
        let callee = Address::repeat_byte(0xcc);
        CallWords {
            id: (Some(callee), [1; 4]),
            caller: Address::repeat_byte(caller),
            callee,
            arguments,
        }
    }

    fn argument(address: u8) -> Vec<u8> {
        Address::repeat_byte(address).into_word().to_vec()
    }

    fn balance(holder: u8, place: u64) -> Key {
        let word = Address::repeat_byte(holder).into_word();
        let slot = mapping_slot(word, B256::from(U256::from(place)));
        keys::storage(&Address::repeat_byte(0xcc), 0, slot.into())
    }

    fn transfer(from: u8, to: u8) -> Footprint {
        let write = |key| Access { key, mode: Mode::Write };
        Footprint::new(vec![
            Access { key: keys::params(), mode: Mode::Read },
            Access { key: keys::code_record(&Address::repeat_byte(0xcc)), mode: Mode::Read },
            write(keys::account(&Address::repeat_byte(from))),
            write(balance(from, 3)),
            write(balance(to, 3)),
        ])
        .unwrap()
    }

    fn predict(entry_point: &EntryPoint, call: &CallWords<'_>) -> Footprint {
        let accesses = entry_point.keys.iter().map(|explained| Access {
            key: explained.formulas[0].key(call).unwrap(),
            mode: explained.mode,
        });
        Footprint::new(accesses.collect()).unwrap()
    }

    #[test]
    fn a_transfer_is_learnt_from_three_callers() {
        let mut entry_point = EntryPoint::default();
        for (from, to) in [(1, 2), (3, 1), (5, 6)] {
            entry_point.learn(&call(from, &argument(to)), &transfer(from, to));
        }
        assert_eq!((entry_point.samples, entry_point.failures), (3, 0));
        assert_eq!(predict(&entry_point, &call(8, &argument(9))), transfer(8, 9));
    }

    #[test]
    fn one_caller_alone_teaches_nothing_about_callers() {
        let mut entry_point = EntryPoint::default();
        for to in 2..40 {
            entry_point.learn(&call(1, &argument(to)), &transfer(1, to));
        }
        assert!(entry_point.samples < SAMPLES_MIN);
    }

    #[test]
    fn what_does_not_follow_from_the_call_is_given_up() {
        let mut entry_point = EntryPoint::default();
        for n in 0..200 {
            let key = balance(n, 40);
            let footprint = Footprint::new(vec![Access { key, mode: Mode::Read }]).unwrap();
            entry_point.learn(&call(n, &argument(n.wrapping_add(7))), &footprint);
        }
        assert!(entry_point.samples < SAMPLES_MIN);
        assert!(entry_point.resting > RESTING_TRIALS - 200);
    }

    #[test]
    fn nested_mappings_are_understood() {
        let allowance = |owner: u8, spender: u8| {
            let word = |n| Address::repeat_byte(n).into_word();
            let first = mapping_slot(word(owner), B256::from(U256::from(1)));
            let slot = mapping_slot(word(spender), first);
            keys::storage(&Address::repeat_byte(0xcc), 0, slot.into())
        };
        let footprint = |owner, spender| {
            let key = allowance(owner, spender);
            Footprint::new(vec![Access { key, mode: Mode::Write }]).unwrap()
        };
        let mut entry_point = EntryPoint::default();
        for (spender, owner) in [(1, 2), (3, 4), (5, 6)] {
            entry_point.learn(&call(spender, &argument(owner)), &footprint(owner, spender));
        }
        assert_eq!(predict(&entry_point, &call(9, &argument(8))), footprint(8, 9));
    }
}
