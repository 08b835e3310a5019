//! The predictor of Ethereum footprints.
//!
//! Input: a plan. Calls of a few contracts are learnt and predicted in turn. Some contracts are
//! *lawful*: their footprints follow from caller and arguments as Solidity's do; after some calls
//! by different callers, their footprints must be predicted exactly. What others touch follows no
//! rule: nothing may come of it but predictions that are footprints.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use alloy_primitives::{Address, B256, TxKind, U256, keccak256};
use arbitrary::Unstructured;
use bytes::Bytes;
use parsec_protocol::{Access, Footprint, Mode, RuntimeId};
use parsec_runtimes::evm::{EvmRuntime, keys};
use parsec_runtimes::{Predictors, Runtimes};

use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "evm_predictor", run, seeds };

const STEPS_MAX: usize = 48;
/// A predictor may leave larger footprints to trials.
const RULES_MAX: usize = 12;
/// After how many calls by different callers a lawful contract must be predicted.
const CALLS_TO_LEARN: u32 = 8;
const ARGUMENTS: usize = 5;

fn run(input: &[u8]) -> Verdict {
    let mut plan = Unstructured::new(input);
    let mut world = World::new();
    match world.play(&mut plan) {
        Ok(()) if world.predicted > 0 => Verdict::Accepted,
        _ => Verdict::Refused,
    }
}

/// A word of a call.
#[derive(Debug, Clone, Copy)]
enum Word {
    Caller,
    Callee,
    Argument(usize),
}

/// How a lawful contract finds a key.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Account(Word),
    CodeRecord(Word),
    Mapping { place: u64, key: Word },
    Nested { place: u64, outer: Word, inner: Word },
    Field { place: u64 },
}

struct Call {
    caller: Address,
    callee: Address,
    arguments: Vec<B256>,
}

impl Call {
    fn word(&self, word: Word) -> B256 {
        match word {
            Word::Caller => self.caller.into_word(),
            Word::Callee => self.callee.into_word(),
            Word::Argument(index) => self.arguments[index],
        }
    }

    fn address(&self, word: Word) -> Address {
        Address::from_word(self.word(word))
    }

    /// The raw transaction.
    fn payload(&self, function: u8) -> Bytes {
        let words = self.arguments.iter().flat_map(|word| word.0);
        let input: Vec<u8> = [function, 1, 2, 3].into_iter().chain(words).collect();
        samples::ethereum::unsigned(TxKind::Call(self.callee), input.into()).into()
    }

    fn footprint(&self, rules: &[(Rule, Mode)]) -> Footprint {
        let accesses =
            rules.iter().map(|(rule, mode)| Access { key: self.key(*rule), mode: *mode });
        Footprint::new(accesses.collect()).unwrap()
    }

    fn key(&self, rule: Rule) -> parsec_protocol::Key {
        let entry = |key: B256, place: B256| keccak256([key.0, place.0].concat());
        let place_of = |place: u64| B256::from(U256::from(place));
        let slot = match rule {
            Rule::Account(word) => return keys::account(&self.address(word)),
            Rule::CodeRecord(word) => return keys::code_record(&self.address(word)),
            Rule::Mapping { place, key } => entry(self.word(key), place_of(place)),
            Rule::Nested { place, outer, inner } => {
                entry(self.word(inner), entry(self.word(outer), place_of(place)))
            }
            Rule::Field { place } => place_of(place),
        };
        keys::storage(&self.callee, 0, slot.into())
    }
}

struct World {
    predictors: Predictors,
    /// The rules of each lawful contract, and how many calls were learnt.
    lawful: BTreeMap<u8, (Vec<(Rule, Mode)>, u32)>,
    /// How many addresses have been given out: none is given out twice.
    addresses: u32,
    predicted: u32,
}

impl World {
    fn new() -> Self {
        let predictors = Runtimes::new(vec![Arc::new(EvmRuntime::new(0xcbdc))]).predictors();
        Self { predictors, lawful: BTreeMap::new(), addresses: 0, predicted: 0 }
    }

    fn play(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        for _ in 0..plan.int_in_range(1..=STEPS_MAX)? {
            match plan.int_in_range(0..=3)? {
                0 => self.any_call(plan)?,
                _ => self.lawful_call(plan)?,
            }
        }
        Ok(())
    }

    fn fresh(&mut self) -> Address {
        self.addresses += 1;
        // Not near one another, and not like any place of a field.
        Address::from_slice(&keccak256(self.addresses.to_be_bytes())[12..])
    }

    /// Learns a call of a lawful contract, or predicts one.
    fn lawful_call(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let contract = plan.int_in_range(0..=2)?;
        if let Entry::Vacant(vacant) = self.lawful.entry(contract) {
            let count = plan.int_in_range(1..=RULES_MAX)?;
            let rules = (0..count).map(|_| Ok((rule(plan)?, mode(plan)?)));
            let rules = rules.collect::<arbitrary::Result<_>>()?;
            vacant.insert((rules, 0));
        }
        let call = Call {
            caller: self.fresh(),
            callee: Address::repeat_byte(0xa0 + contract),
            arguments: (0..ARGUMENTS).map(|_| self.fresh().into_word()).collect(),
        };
        let payload = call.payload(contract);
        let (rules, learnt) = &self.lawful[&contract];
        let footprint = call.footprint(rules);
        if *learnt >= CALLS_TO_LEARN {
            // One prediction may be left out, for a trial to check the others.
            let predict =
                || self.predictors.predict(RuntimeId::EVM, call.caller.as_slice(), &payload);
            let prediction = predict().or_else(predict);
            assert_eq!(prediction.as_ref(), Some(&footprint), "rules {rules:?}");
            self.predicted += 1;
        }
        self.predictors.learn(RuntimeId::EVM, call.caller.as_slice(), &payload, &footprint);
        if let Some((_, learnt)) = self.lawful.get_mut(&contract) {
            *learnt += 1;
        }
        Ok(())
    }

    /// Learns anything about any payload, and predicts it.
    fn any_call(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let words = plan.int_in_range(0..=ARGUMENTS + 4)?;
        let call = Call {
            caller: Address::from_word(few(plan)?),
            callee: Address::from_word(few(plan)?),
            arguments: (0..words).map(|_| few(plan)).collect::<arbitrary::Result<_>>()?,
        };
        let payload = match plan.int_in_range(0..=7)? {
            0 => Bytes::copy_from_slice(plan.bytes(plan.len().min(40))?),
            1 => {
                let length = plan.int_in_range(0..=3)?;
                let input = plan.bytes(length)?.to_vec();
                samples::ethereum::unsigned(TxKind::Call(call.callee), input.into()).into()
            }
            2 => samples::ethereum::unsigned(TxKind::Create, Vec::new().into()).into(),
            function => call.payload(function % 2),
        };
        let sender = match plan.ratio(1, 16)? {
            true => plan.bytes(plan.len().min(3))?,
            false => call.caller.as_slice(),
        };
        let mut accesses = Vec::new();
        for _ in 0..plan.int_in_range(0..=60)? {
            let rule = rule(plan)?;
            let key = match rule {
                Rule::Account(Word::Argument(n)) | Rule::CodeRecord(Word::Argument(n))
                    if n >= words =>
                {
                    keys::account(&self.fresh())
                }
                Rule::Mapping { .. } | Rule::Nested { .. } if words < ARGUMENTS => {
                    keys::storage(&call.callee, 1, U256::from(accesses.len()))
                }
                rule => call.key(rule),
            };
            accesses.push(Access { key, mode: mode(plan)? });
        }
        let footprint = Footprint::new(accesses).unwrap();
        self.predictors.learn(RuntimeId::EVM, sender, &payload, &footprint);
        if let Some(predicted) = self.predictors.predict(RuntimeId::EVM, sender, &payload) {
            let again = Footprint::new(predicted.accesses().to_vec());
            assert_eq!(again.as_ref(), Ok(&predicted), "a prediction is a footprint");
            self.predicted += 1;
        }
        Ok(())
    }
}

/// One of a few addresses, so that calls have words in common.
fn few(plan: &mut Unstructured<'_>) -> arbitrary::Result<B256> {
    Ok(Address::repeat_byte(plan.int_in_range(0..=4)?).into_word())
}

fn word(plan: &mut Unstructured<'_>) -> arbitrary::Result<Word> {
    Ok(match plan.int_in_range(0..=ARGUMENTS + 1)? {
        0 => Word::Caller,
        1 => Word::Callee,
        argument => Word::Argument(argument - 2),
    })
}

fn rule(plan: &mut Unstructured<'_>) -> arbitrary::Result<Rule> {
    let kind = plan.int_in_range(0..=4)?;
    let (place, any) = (plan.int_in_range(0..=15)?, word(plan)?);
    // Predictors look at nested mappings of the first words only.
    let early = |word| match word {
        Word::Argument(index) => Word::Argument(index % 3),
        other => other,
    };
    Ok(match kind {
        0 => Rule::Account(any),
        1 => Rule::CodeRecord(any),
        2 => Rule::Mapping { place, key: any },
        3 => Rule::Nested { place, outer: early(any), inner: early(word(plan)?) },
        _ => Rule::Field { place },
    })
}

fn mode(plan: &mut Unstructured<'_>) -> arbitrary::Result<Mode> {
    Ok(*plan.choose(&[Mode::Add, Mode::Read, Mode::Write])?)
}

/// Plans are read from their beginning, lengths from their end: what is long and varied gives a
/// plan of many steps.
fn seeds() -> Vec<Seed> {
    let varied = |seed: u32| {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        [47].into_iter().chain(std::iter::repeat_with(next).take(3_000)).collect::<Vec<u8>>()
    };
    // Always the same contract, learnt until it is predicted.
    let mut one = vec![47];
    one.extend([1, 0, 3, 0, 0, 0, 2, 2, 0, 1, 2, 2, 2, 3, 1, 1, 3, 0, 2]);
    one.extend([1, 0].repeat(60));
    vec![
        Seed::new("one-contract", one),
        Seed::new("many-calls", varied(1)),
        Seed::new("many-calls-too", varied(22)),
    ]
}
