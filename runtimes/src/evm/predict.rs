//! How the footprints of Ethereum transactions follow from their callers and arguments.
//!
//! An entry point is a called address and the first four bytes of the call data. The keys of a
//! call are mostly accounts of its caller, callee and arguments, and entries of mappings, whose
//! slots are Keccak-256 hashes of the mapping's key and place in the contract (Solidity's storage
//! layout). What is learnt from that, and when it predicts, is [`learner`]'s.
//!
//! [`learner`]: crate::predict::learner

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes as Input, U256, b256, keccak256};
use bytes::Bytes;
use parsec_protocol::{Footprint, Key};

use super::{keys, payload};
use crate::predict::learner::{Calls, Learner};

/// Predicts the footprints of Ethereum transactions.
pub(super) type EvmPredictor = Learner<EvmCalls>;

/// Words of call data that formulas look at.
const WORDS_MAX: usize = 8;
/// Most different words that formulas for slots begin with.
const SLOT_WORDS_MAX: usize = 8;
/// Most different words that formulas for slots of nested mappings are made of.
const NESTED_WORDS_MAX: usize = 5;
/// Places of mappings in a contract that formulas look at, from the first on.
const PLACES: u64 = 16;
/// Words of one entry of a mapping that formulas look at, from the first on.
const ENTRY_WORDS: u64 = 4;
/// Where OpenZeppelin's upgradeable ERC-20 has its mapping of balances (ERC-7201,
/// "openzeppelin.storage.ERC20"); that of allowances comes next.
const NAMESPACED_ERC20: B256 =
    b256!("52c63247e1f47db19d5ce0460030c497f067ca4cebf71ba98eeadabe20bace00");

/// Ethereum transactions as calls to be predicted.
pub(super) enum EvmCalls {}

/// What identifies an entry point.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EntryPointId {
    /// The called address; none for transfers of Ether, which are the same to all but contracts.
    callee: Option<Address>,
    /// None for a call without data.
    selector: Option<[u8; 4]>,
    /// Whether it pays for its gas, so that the coinbase gains.
    pays: bool,
    /// Whether it brings Ether along.
    brings: bool,
}

/// A call, as formulas see it.
pub(super) struct EvmCall {
    id: EntryPointId,
    caller: Address,
    callee: Address,
    /// What follows the selector.
    arguments: Input,
}

/// A 32-byte word that a call brings with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Caller,
    Callee,
    Argument(usize),
}

/// Whose storage a slot is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Of(Word),
    Always(Address),
}

/// How a key follows from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Formula {
    /// The account record of an address.
    Account(Word),
    /// The code record of an address.
    CodeRecord(Word),
    /// A slot of an entry of a mapping, of one key or two nested ones.
    Slot(Box<Slot>),
    /// Always this key.
    Constant(Key),
}

/// A slot of an entry of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    whose: Whose,
    incarnation: u64,
    place: B256,
    outer: Word,
    inner: Option<Word>,
    /// How many words it is behind the first of its entry.
    offset: u64,
}

impl Calls for EvmCalls {
    type Id = EntryPointId;
    type Call = EvmCall;
    type Formula = Formula;
    type Origin = Address;

    fn call(sender: &[u8], payload: &Bytes) -> Option<EvmCall> {
        let transaction = payload::decode(payload).ok()?;
        // What delegates accounts touches their records, whatever it calls.
        if transaction.authorization_list().is_some() {
            return None;
        }
        let callee = transaction.kind().into_to()?;
        let caller = Address::try_from(sender).ok()?;
        let input = transaction.input();
        let selector = match input.first_chunk::<4>() {
            None if !input.is_empty() => return None,
            selector => selector.copied(),
        };
        let arguments = input.slice(input.len().min(4)..);
        let pays = transaction.max_fee_per_gas() > 0;
        let brings = !transaction.value().is_zero();
        let id = EntryPointId { callee: Some(callee), selector, pays, brings };
        Some(EvmCall { id, caller, callee, arguments })
    }

    fn id(call: &EvmCall) -> EntryPointId {
        call.id.clone()
    }

    fn general(call: &EvmCall) -> Option<EntryPointId> {
        let general = EntryPointId { callee: None, ..call.id.clone() };
        call.id.selector.is_none().then_some(general)
    }

    fn is_general(footprint: &Footprint) -> bool {
        !footprint.accesses().iter().any(|access| keys::is_code(&access.key))
    }

    fn origin(call: &EvmCall) -> Option<Address> {
        Some(call.caller)
    }

    fn explain(call: &EvmCall, keys: &[&Key]) -> Vec<Vec<Formula>> {
        let mut all: Vec<Vec<Formula>> = keys.iter().map(|key| simple(call, key)).collect();
        explain_slots(call, keys, &mut all);
        for (formulas, key) in all.iter_mut().zip(keys) {
            formulas.push(Formula::Constant(Key::clone(key)));
        }
        all
    }

    fn key(formula: &Formula, call: &EvmCall) -> Option<Key> {
        match formula {
            Formula::Account(word) => Some(keys::account(&word.address(call)?)),
            Formula::CodeRecord(word) => Some(keys::code_record(&word.address(call)?)),
            Formula::Slot(slot) => slot.key(call),
            Formula::Constant(key) => Some(key.clone()),
        }
    }
}

impl Slot {
    fn key(&self, call: &EvmCall) -> Option<Key> {
        let mut slot = entry(self.outer.word(call)?, self.place);
        if let Some(inner) = self.inner {
            slot = entry(inner.word(call)?, slot);
        }
        let address = match self.whose {
            Whose::Of(word) => word.address(call)?,
            Whose::Always(address) => address,
        };
        let slot = U256::from_be_bytes(slot.0).wrapping_add(U256::from(self.offset));
        Some(keys::storage(&address, self.incarnation, slot))
    }
}

impl Word {
    fn word(self, call: &EvmCall) -> Option<B256> {
        match self {
            Self::Caller => Some(call.caller.into_word()),
            Self::Callee => Some(call.callee.into_word()),
            Self::Argument(n) => call.arguments.get(n * 32..n * 32 + 32).map(B256::from_slice),
        }
    }

    /// The word as an address, if it is one.
    fn address(self, call: &EvmCall) -> Option<Address> {
        let word = self.word(call)?;
        word[..12].iter().all(|byte| *byte == 0).then(|| Address::from_word(word))
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Caller, Self::Callee].into_iter().chain((0..WORDS_MAX).map(Self::Argument))
    }
}

/// The first slot of the entry `key` of a mapping at `place`.
fn entry(key: B256, place: B256) -> B256 {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(key.as_slice());
    bytes[32..].copy_from_slice(place.as_slice());
    keccak256(bytes)
}

/// Formulas for keys of accounts.
fn simple(call: &EvmCall, key: &Key) -> Vec<Formula> {
    let formulas = Word::all().flat_map(|word| [Formula::Account(word), Formula::CodeRecord(word)]);
    formulas.filter(|formula| EvmCalls::key(formula, call).as_ref() == Some(key)).collect()
}

/// A word of storage whose slot is to be explained: which key it is, and what it says.
struct Target {
    index: usize,
    address: Address,
    incarnation: u64,
    slot: U256,
}

/// Adds formulas for slots of mappings.
fn explain_slots(call: &EvmCall, keys: &[&Key], all: &mut [Vec<Formula>]) {
    let target = |(index, key): (usize, &&Key)| {
        let (address, incarnation, slot) = keys::storage_parts(key)?;
        Some(Target { index, address, incarnation, slot: slot.into() })
    };
    let mut targets: Vec<Target> = keys.iter().enumerate().filter_map(target).collect();
    // Slots of variables that are no mappings have small numbers.
    targets.retain(|target| target.slot >= U256::from(PLACES));
    if targets.is_empty() {
        return;
    }
    let words = distinct_words(call);
    let places = (0..PLACES).map(|place| B256::from(U256::from(place)));
    let namespaced = U256::from_be_bytes(NAMESPACED_ERC20.0);
    let namespaced = [0u64, 1].map(|n| B256::from(namespaced + U256::from(n)));
    let mut firsts = Vec::with_capacity(words.len() * 18);
    for place in places.chain(namespaced) {
        firsts
            .extend(words.iter().enumerate().map(|(n, (_, word))| (place, n, entry(*word, place))));
    }
    for (place, outer, slot) in &firsts {
        let found = Found { place: *place, outer: &words[*outer].0, inner: None, slot: *slot };
        found.explain(call, &targets, all);
    }
    targets.retain(|target| all[target.index].is_empty());
    if targets.is_empty() {
        return;
    }
    // Keys of nested mappings are mostly addresses.
    let (numbers, nested): (Vec<_>, Vec<_>) =
        (0..words.len()).partition(|n| words[*n].1[..12].iter().any(|byte| *byte != 0));
    let nested: Vec<usize> = nested.into_iter().chain(numbers).take(NESTED_WORDS_MAX).collect();
    for (place, outer, first) in firsts.iter().filter(|(_, outer, _)| nested.contains(outer)) {
        for inner in &nested {
            let slot = entry(words[*inner].1, *first);
            let inner = Some(&words[*inner].0[..]);
            let found = Found { place: *place, outer: &words[*outer].0, inner, slot };
            found.explain(call, &targets, all);
        }
    }
}

/// The first slot of an entry of a mapping, and the words that may have led there.
struct Found<'a> {
    place: B256,
    outer: &'a [Word],
    inner: Option<&'a [Word]>,
    slot: B256,
}

impl Found<'_> {
    /// Adds formulas for those targets that are here.
    fn explain(&self, call: &EvmCall, targets: &[Target], all: &mut [Vec<Formula>]) {
        for target in targets {
            let offset = target.slot.wrapping_sub(U256::from_be_bytes(self.slot.0));
            let Ok(offset) = u64::try_from(offset) else { continue };
            if offset >= ENTRY_WORDS {
                continue;
            }
            let inners =
                self.inner.map_or_else(|| vec![None], |i| i.iter().copied().map(Some).collect());
            for whose in whose(call, target.address) {
                for outer in self.outer {
                    all[target.index].extend(inners.iter().map(|inner| {
                        Formula::Slot(Box::new(Slot {
                            whose,
                            incarnation: target.incarnation,
                            place: self.place,
                            outer: *outer,
                            inner: *inner,
                            offset,
                        }))
                    }));
                }
            }
        }
    }
}

/// Whose storage it is that `address` has.
fn whose(call: &EvmCall, address: Address) -> Vec<Whose> {
    if address == call.callee {
        // An entry point is one of a callee, so it is the same for all of its calls.
        return vec![Whose::Of(Word::Callee)];
    }
    let named = Word::all().filter(|word| word.address(call) == Some(address)).map(Whose::Of);
    named.chain([Whose::Always(address)]).collect()
}

/// The words of a call that mappings may have as keys, each with where it occurs: addresses first.
fn distinct_words(call: &EvmCall) -> Vec<(Vec<Word>, B256)> {
    let mut distinct: Vec<(Vec<Word>, B256)> = Vec::new();
    for (word, value) in Word::all().filter_map(|word| Some((word, word.word(call)?))) {
        match distinct.iter_mut().find(|(_, known)| *known == value) {
            Some((words, _)) => words.push(word),
            None => distinct.push((vec![word], value)),
        }
    }
    distinct.truncate(SLOT_WORDS_MAX);
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[B256]) -> EvmCall {
        let callee = Address::repeat_byte(0xcc);
        let id = EntryPointId {
            callee: Some(callee),
            selector: Some([1; 4]),
            pays: false,
            brings: false,
        };
        let arguments = arguments.iter().flat_map(|word| word.0).collect::<Vec<_>>().into();
        EvmCall { id, caller: Address::repeat_byte(1), callee, arguments }
    }

    fn word(byte: u8) -> B256 {
        Address::repeat_byte(byte).into_word()
    }

    fn place(number: u64) -> B256 {
        B256::from(U256::from(number))
    }

    /// The first formulas for a key, and the key that it gives in another call.
    fn carried_over(from: &EvmCall, key: &Key, to: &EvmCall) -> Key {
        let formulas = EvmCalls::explain(from, &[key]).remove(0);
        for formula in &formulas {
            assert_eq!(EvmCalls::key(formula, from).as_ref(), Some(key), "{formula:?}");
        }
        EvmCalls::key(&formulas[0], to).unwrap()
    }

    #[test]
    fn entries_of_mappings_are_understood() {
        let (first, second) = (call(&[word(2), word(3)]), call(&[word(7), word(8)]));
        let at = |slot: B256, offset: u64| {
            let slot = U256::from_be_bytes(slot.0) + U256::from(offset);
            keys::storage(&Address::repeat_byte(0xcc), 0, slot)
        };
        let deep = |a, b, at: u64| entry(word(b), entry(word(a), place(at)));
        let cases = [
            (at(entry(word(2), place(3)), 0), at(entry(word(7), place(3)), 0)),
            (at(entry(word(3), place(15)), 2), at(entry(word(8), place(15)), 2)),
            (at(deep(2, 3, 1), 0), at(deep(7, 8, 1), 0)),
            (at(deep(3, 1, 1), 1), at(deep(8, 1, 1), 1)),
            (at(entry(word(2), NAMESPACED_ERC20), 0), at(entry(word(7), NAMESPACED_ERC20), 0)),
            (at(place(5), 0), at(place(5), 0)),
            (at(entry(word(9), place(3)), 0), at(entry(word(9), place(3)), 0)),
            (keys::account(&Address::repeat_byte(2)), keys::account(&Address::repeat_byte(7))),
            (
                keys::code_record(&Address::repeat_byte(3)),
                keys::code_record(&Address::repeat_byte(8)),
            ),
        ];
        for (key, expected) in cases {
            assert_eq!(carried_over(&first, &key, &second), expected, "{key}");
        }
    }

    #[test]
    fn the_storage_of_other_contracts_is_understood() {
        let (first, second) = (call(&[word(2), word(3)]), call(&[word(7), word(8)]));
        let balance = |token: u8, holder: u8| {
            let slot = entry(word(holder), place(0));
            keys::storage(&Address::repeat_byte(token), 0, slot.into())
        };
        // A token that is an argument, and one that is none.
        assert_eq!(carried_over(&first, &balance(2, 3), &second), balance(7, 8));
        assert_eq!(carried_over(&first, &balance(0x55, 3), &second), balance(0x55, 8));
    }

    #[test]
    fn equal_words_are_told_apart_later() {
        let same = call(&[word(2), word(2)]);
        let key = keys::account(&Address::repeat_byte(2));
        let formulas = EvmCalls::explain(&same, &[&key]).remove(0);
        let (first, second) = (Formula::Account(Word::Argument(0)), Word::Argument(1));
        assert_eq!(formulas, [first, Formula::Account(second), Formula::Constant(key)]);
    }
}
