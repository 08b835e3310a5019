//! How the footprints of calls of Lua contracts follow from their arguments.
//!
//! An entry point is a contract and a function. The names of a contract's state are mostly made of
//! fixed text and of arguments, or parts of them, as they are or in decimal digits. What is learnt
//! from that, and when it predicts, is [`learner`](crate::predict::learner)'s.

use std::ops::Range;

use bytes::Bytes;
use parsec_protocol::{Footprint, Key};

use super::{LuaCall, LuaValue, contract_key, decode, state_name};
use crate::predict::learner::{Calls, Learner};

/// Predicts the footprints of calls of Lua contracts.
pub(super) type LuaPredictor = Learner<LuaCalls>;

/// Shortest argument that is looked for anywhere in a name; shorter ones have to stand apart.
const ANYWHERE_BYTES_MIN: usize = 4;
/// Shortest part of an argument that is looked for in names.
const PART_BYTES_MIN: usize = 8;
/// Longest argument that names are compared with.
const ARGUMENT_BYTES_MAX: usize = 512;
/// Most arguments that names are compared with.
const ARGUMENTS_MAX: usize = 8;
/// Most ways to read one name that are kept.
const READINGS_MAX: usize = 5;

/// Calls of Lua contracts to be predicted.
pub(super) enum LuaCalls {}

/// A call, as formulas see it.
pub(super) struct Invocation {
    contract: [u8; 32],
    function: String,
    arguments: Vec<LuaValue>,
}

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// The same in every call.
    Text(Bytes),
    /// An argument, as it is.
    Argument(usize),
    /// A part of an argument.
    Part(usize, Range<usize>),
    /// An integer argument in decimal digits.
    Digits(usize),
}

/// How a key follows from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Formula {
    /// The state of the contract with a name of these pieces.
    State(Vec<Piece>),
    /// Always this key.
    Constant(Key),
}

impl Calls for LuaCalls {
    type Id = ([u8; 32], String);
    type Call = Invocation;
    type Formula = Formula;
    type Origin = ();

    fn call(_: &[u8], payload: &Bytes) -> Option<Invocation> {
        match decode(payload).ok()? {
            LuaCall::Invoke { contract, function, arguments, .. } => {
                Some(Invocation { contract, function, arguments })
            }
            LuaCall::Deploy { .. } => None,
        }
    }

    fn id(call: &Invocation) -> Self::Id {
        (call.contract, call.function.clone())
    }

    fn general(_: &Invocation) -> Option<Self::Id> {
        None
    }

    fn is_general(_: &Footprint) -> bool {
        false
    }

    fn origin(_: &Invocation) -> Option<()> {
        None
    }

    fn explain(call: &Invocation, keys: &[&Key]) -> Vec<Vec<Formula>> {
        let explain = |key: &&Key| {
            let name = state_name(&call.contract, key);
            let readings = name.map_or_else(Vec::new, |name| readings(call, name));
            let formulas = readings.into_iter().map(Formula::State);
            formulas.chain([Formula::Constant(Key::clone(key))]).collect()
        };
        keys.iter().map(explain).collect()
    }

    fn key(formula: &Formula, call: &Invocation) -> Option<Key> {
        match formula {
            Formula::State(pieces) => {
                let mut name = Vec::with_capacity(64);
                pieces.iter().try_for_each(|piece| piece.write(call, &mut name))?;
                contract_key(&call.contract, &name).ok()
            }
            Formula::Constant(key) => Some(key.clone()),
        }
    }
}

impl Piece {
    /// Adds what it is in this call, if it is anything.
    fn write(&self, call: &Invocation, name: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Text(text) => name.extend_from_slice(text),
            Self::Argument(n) => name.extend_from_slice(bytes(call.arguments.get(*n)?)?),
            Self::Part(n, range) => {
                name.extend_from_slice(bytes(call.arguments.get(*n)?)?.get(range.clone())?);
            }
            Self::Digits(n) => match call.arguments.get(*n)? {
                LuaValue::Int(number) => name.extend_from_slice(number.to_string().as_bytes()),
                _ => return None,
            },
        }
        Some(())
    }
}

fn bytes(value: &LuaValue) -> Option<&[u8]> {
    match value {
        LuaValue::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// A place in a name that arguments explain, each in its own way.
struct Occurrence {
    range: Range<usize>,
    pieces: Vec<Piece>,
}

/// The ways to read a name as made of text and arguments: the one with the longest pieces, with
/// all arguments that fit. None if it has to do with no argument.
fn readings(call: &Invocation, name: &[u8]) -> Vec<Vec<Piece>> {
    let mut all = occurrences(call, name);
    all.sort_by_key(|occurrence| std::cmp::Reverse(occurrence.range.len()));
    let mut chosen: Vec<Occurrence> = Vec::new();
    for occurrence in all {
        let Range { start, end } = occurrence.range;
        match chosen.iter_mut().find(|other| other.range.start < end && start < other.range.end) {
            Some(same) if same.range == occurrence.range => same.pieces.extend(occurrence.pieces),
            Some(_) => {}
            None => chosen.push(occurrence),
        }
    }
    chosen.sort_by_key(|occurrence| occurrence.range.start);
    if chosen.is_empty() {
        return Vec::new();
    }
    let mut readings: Vec<Vec<Piece>> = vec![Vec::new()];
    let mut at = 0;
    let text = |range: Range<usize>| Piece::Text(Bytes::copy_from_slice(&name[range]));
    for Occurrence { range, pieces } in chosen {
        let before = (at < range.start).then(|| text(at..range.start));
        at = range.end;
        let with = |reading: &Vec<Piece>| {
            let head: Vec<Piece> = reading.iter().chain(&before).cloned().collect();
            let each = |piece: &Piece| head.iter().chain([piece]).cloned().collect::<Vec<_>>();
            pieces.iter().map(each).collect::<Vec<_>>()
        };
        readings = readings.iter().flat_map(with).take(READINGS_MAX).collect();
    }
    if at < name.len() {
        readings.iter_mut().for_each(|reading| reading.push(text(at..name.len())));
    }
    readings
}

fn occurrences(call: &Invocation, name: &[u8]) -> Vec<Occurrence> {
    let mut all = Vec::new();
    for (n, argument) in call.arguments.iter().enumerate().take(ARGUMENTS_MAX) {
        let mut add = |range, piece| all.push(Occurrence { range, pieces: vec![piece] });
        match argument {
            LuaValue::Bytes(bytes) if (1..=ARGUMENT_BYTES_MAX).contains(&bytes.len()) => {
                for range in find(name, bytes) {
                    if bytes.len() >= ANYWHERE_BYTES_MIN || stands_apart(name, &range) {
                        add(range, Piece::Argument(n));
                    }
                }
                for (at, from, length) in common(name, bytes) {
                    add(at..at + length, Piece::Part(n, from..from + length));
                }
            }
            LuaValue::Int(number) => {
                for range in find(name, number.to_string().as_bytes()) {
                    if stands_apart(name, &range) {
                        add(range, Piece::Digits(n));
                    }
                }
            }
            _ => {}
        }
    }
    all
}

/// Where `part` is in `name`.
fn find(name: &[u8], part: &[u8]) -> Vec<Range<usize>> {
    let places = name.windows(part.len()).enumerate().filter(|(_, window)| *window == part);
    places.map(|(at, _)| at..at + part.len()).collect()
}

/// Whether what is there is no part of a longer word or number.
fn stands_apart(name: &[u8], range: &Range<usize>) -> bool {
    let continues = |at: usize| name.get(at).is_some_and(u8::is_ascii_alphanumeric);
    !(range.start > 0 && continues(range.start - 1) || continues(range.end))
}

/// Where `name` has parts of `argument` that are long enough and can't be longer: place, place in
/// the argument, and length. All of the argument is not a part of it.
fn common(name: &[u8], argument: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    for at in 0..name.len() {
        for from in 0..argument.len() {
            if at > 0 && from > 0 && name[at - 1] == argument[from - 1] {
                continue;
            }
            let pairs = name[at..].iter().zip(&argument[from..]);
            let length = pairs.take_while(|(a, b)| a == b).count();
            if (PART_BYTES_MIN..argument.len()).contains(&length) {
                all.push((at, from, length));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: [u8; 32] = [9; 32];

    fn call(arguments: &[LuaValue]) -> Invocation {
        let arguments = arguments.to_vec();
        Invocation { contract: CONTRACT, function: "f".to_owned(), arguments }
    }

    fn key(name: impl AsRef<[u8]>) -> Key {
        contract_key(&CONTRACT, name.as_ref()).unwrap()
    }

    fn text(byte: u8, length: usize) -> LuaValue {
        let bytes: Vec<u8> =
            (0u8..).take(length).map(|n| byte.wrapping_add(n.wrapping_mul(7))).collect();
        LuaValue::Bytes(bytes.into())
    }

    fn raw(value: &LuaValue) -> &[u8] {
        bytes(value).unwrap()
    }

    /// The key that the first formula for `from` gives in another call.
    fn carried_over(first: &[LuaValue], from: &Key, second: &[LuaValue]) -> Key {
        let formulas = LuaCalls::explain(&call(first), &[from]).remove(0);
        for formula in &formulas {
            assert_eq!(LuaCalls::key(formula, &call(first)).as_ref(), Some(from), "{formula:?}");
        }
        LuaCalls::key(&formulas[0], &call(second)).unwrap()
    }

    #[test]
    fn names_of_arguments_are_understood() {
        let first = [text(1, 32), text(50, 32), LuaValue::Int(17), "al".into()];
        let second = [text(99, 32), text(150, 32), LuaValue::Int(-4), "bo".into()];
        let names = |call: &[LuaValue; 4]| {
            let [a, b, _, short] = call.each_ref();
            let LuaValue::Int(number) = call[2] else { panic!("an integer") };
            [
                [&b"account_"[..], raw(a)].concat(),
                [&b"allow_"[..], raw(a), b":", raw(b)].concat(),
                [raw(b), &b"_of_"[..], raw(a), b"!"].concat(),
                format!("item_{number}_x").into_bytes(),
                [&b"user/"[..], raw(short)].concat(),
                b"total".to_vec(),
            ]
        };
        for (from, to) in names(&first).into_iter().zip(names(&second)) {
            assert_eq!(carried_over(&first, &key(from), &second), key(to));
        }
    }

    #[test]
    fn parts_of_arguments_are_understood() {
        // One long argument, as in PArSEC: from, to, and more.
        let (first, second) = (text(3, 144), text(77, 144));
        let name = |argument: &LuaValue, range| [&b"account_"[..], &raw(argument)[range]].concat();
        for range in [0..32, 32..64] {
            let from = key(name(&first, range.clone()));
            let to = key(name(&second, range));
            let carried =
                carried_over(std::slice::from_ref(&first), &from, std::slice::from_ref(&second));
            assert_eq!(carried, to);
        }
    }

    #[test]
    fn a_short_argument_is_not_seen_in_words() {
        let first = [LuaValue::from("a"), LuaValue::Int(1)];
        let formulas = LuaCalls::explain(&call(&first), &[&key("account_10")]).remove(0);
        assert_eq!(formulas, [Formula::Constant(key("account_10"))]);
    }
}
