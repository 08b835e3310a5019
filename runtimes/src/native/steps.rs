//! The operations of a program, one by one.

use std::hint::black_box;

use parsec_protocol::{Delta, ErrorCode, Key, Value};

use super::{Op, is_of_a_table};
use crate::draft::Draft;
use crate::{Interrupt, State};

/// A program on its way.
pub(super) struct Steps<'a> {
    draft: Draft<'a>,
    trial: bool,
}

/// `Err` is the program's own no.
type Step<T> = Result<Result<T, ErrorCode>, Interrupt>;

/// Takes the value out of a step, or returns its no.
macro_rules! step {
    ($step:expr) => {
        match $step? {
            Ok(value) => value,
            Err(code) => return Ok(Err(code)),
        }
    };
}

impl<'a> Steps<'a> {
    pub(super) fn new(state: &'a mut dyn State, trial: bool) -> Self {
        Self { draft: Draft::new(state), trial }
    }

    /// Runs one operation.
    pub(super) fn run(&mut self, op: Op, results: &mut Vec<Option<Value>>) -> Step<()> {
        match op {
            Op::Get { key } => results.push(self.draft.get(&key)?),
            Op::Put { key, value } => self.draft.put(key, Some(value)),
            Op::Delete { key } => self.draft.put(key, None),
            Op::Add { key, amount } => self.draft.add(key, Delta::from(amount)),
            Op::Transfer { from, to, amount } => return self.transfer(from, to, amount),
            Op::Require { key, equals } => {
                // A transaction before it may yet make it true: a trial looks at what comes after.
                if self.draft.get(&key)? != equals && !self.trial {
                    return Ok(Err(ErrorCode::Refused));
                }
            }
            Op::Chase { start, hops, put } => {
                let (last, value) = step!(self.chase(start, hops));
                results.push(value);
                if put.is_some() {
                    self.draft.put(last, put);
                }
            }
            Op::Work { rounds } => work(rounds),
        }
        Ok(Ok(()))
    }

    /// Makes the changes.
    pub(super) fn finish(self) -> Result<(), Interrupt> {
        self.draft.finish()
    }

    fn transfer(&mut self, from: Key, to: Key, amount: u128) -> Step<()> {
        let old = self.draft.get(&from)?;
        let mut balance = step!(Ok(number(old.as_ref())));
        if balance < amount && !self.trial {
            return Ok(Err(ErrorCode::InsufficientFunds));
        }
        balance = balance.saturating_sub(amount);
        self.draft.put(from, Some(with_number(old.as_ref(), balance)));
        let old = self.draft.get(&to)?;
        let balance = step!(Ok(number(old.as_ref())));
        let Some(balance) = balance.checked_add(amount) else {
            return Ok(Err(ErrorCode::Overflow));
        };
        self.draft.put(to, Some(with_number(old.as_ref(), balance)));
        Ok(Ok(()))
    }

    /// The key at the end of a chain of keys, and its value.
    fn chase(&mut self, start: Key, hops: u8) -> Step<(Key, Option<Value>)> {
        let mut key = start;
        for _ in 0..hops {
            let next = self.draft.get(&key)?.and_then(|value| Key::from_encoded(value).ok());
            match next.filter(is_of_a_table) {
                Some(next) => key = next,
                None => return Ok(Err(ErrorCode::Refused)),
            }
        }
        let value = self.draft.get(&key)?;
        Ok(Ok((key, value)))
    }
}

/// The number that a value begins with.
fn number(value: Option<&Value>) -> Result<u128, ErrorCode> {
    let value = value.map_or(&[][..], |value| &value[..]);
    let mut padded = [0; 32];
    let head = value.len().min(32);
    padded[..head].copy_from_slice(&value[..head]);
    let (high, low) = padded.split_at(16);
    if high.iter().any(|byte| *byte != 0) {
        return Err(ErrorCode::Overflow);
    }
    Ok(low.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// `old` with another number at its beginning.
fn with_number(old: Option<&Value>, number: u128) -> Value {
    let mut head = [0; 32];
    head[16..].copy_from_slice(&number.to_be_bytes());
    match old.and_then(|value| value.get(32..)).filter(|tail| !tail.is_empty()) {
        Some(tail) => Value::concat([&head[..], tail]),
        None => Value::copy_from_slice(&head),
    }
}

fn work(rounds: u32) {
    let mut hash = [0; 32];
    for _ in 0..rounds {
        hash = *blake3::hash(&hash).as_bytes();
    }
    black_box(hash);
}
