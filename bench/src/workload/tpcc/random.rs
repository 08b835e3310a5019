//! Random numbers and text as clauses 2.1.6, 4.3.2 and 4.3.3 have them.

use crate::draw::Draws;

/// The run's constants of NURand: clause 2.1.6.1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    name: u32,
    customer: u32,
    item: u32,
}

impl Constants {
    pub(super) fn new(seed: u64) -> Self {
        let mut draws = Draws::new(seed, "tpcc constants");
        Self {
            name: between(&mut draws, 0, 255),
            customer: between(&mut draws, 0, 1_023),
            item: between(&mut draws, 0, 8_191),
        }
    }

    /// The number of a customer, from 1.
    pub(super) fn customer(&self, draws: &mut Draws, customers: u32) -> u32 {
        uneven(draws, 1_023, self.customer, 1, customers)
    }

    /// The number of an item, from 1.
    pub(super) fn item(&self, draws: &mut Draws, items: u32) -> u32 {
        uneven(draws, 8_191, self.item, 1, items)
    }

    /// The number of a last name that some of so many customers have.
    pub(super) fn name(&self, draws: &mut Draws, customers: u32) -> u16 {
        let last = customers.min(super::NAMES.into()) - 1;
        u16::try_from(uneven(draws, 255, self.name, 0, last)).expect("below 1,000")
    }
}

/// A number between two, both included.
pub(super) fn between(draws: &mut Draws, least: u32, most: u32) -> u32 {
    let drawn = draws.below(u64::from(most - least) + 1);
    least + u32::try_from(drawn).expect("below a u32")
}

/// As [`between`], for numbers below 256.
pub(super) fn small(draws: &mut Draws, least: u8, most: u8) -> u8 {
    u8::try_from(between(draws, least.into(), most.into())).expect("between two u8")
}

/// NURand.
fn uneven(draws: &mut Draws, a: u32, c: u32, least: u32, most: u32) -> u32 {
    let drawn = between(draws, 0, a) | between(draws, least, most);
    (drawn + c) % (most - least + 1) + least
}

/// So many letters and digits.
pub(super) fn text(draws: &mut Draws, length: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ab";
    let mut text = Vec::with_capacity(length + 8);
    while text.len() < length {
        let drawn = draws.next_u64().to_be_bytes();
        text.extend(drawn.map(|byte| LETTERS[usize::from(byte % 64)]));
    }
    text.truncate(length);
    text
}

/// Letters and digits, so many as a draw between two says.
pub(super) fn some_text(draws: &mut Draws, least: u32, most: u32) -> Vec<u8> {
    let length = between(draws, least, most);
    text(draws, usize::try_from(length).expect("some hundreds"))
}

/// I_DATA or S_DATA: one in ten names the original.
pub(super) fn data(draws: &mut Draws) -> Vec<u8> {
    let mut data = some_text(draws, 26, 50);
    if draws.below(10) == 0 {
        let at = between(draws, 0, u32::try_from(data.len() - 8).expect("50 at most"));
        let at = usize::try_from(at).expect("50 at most");
        data[at..at + 8].copy_from_slice(b"ORIGINAL");
    }
    data
}

/// Text of exactly that length.
pub(super) fn exact<const N: usize>(draws: &mut Draws) -> [u8; N] {
    text(draws, N).try_into().expect("as long as it was asked for")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn uneven_numbers_are_in_range_and_uneven() {
        let mut draws = Draws::new(1, "test");
        let constants = Constants::new(1);
        let mut counts = vec![0u32; 3_001];
        for _ in 0..30_000 {
            counts[constants.customer(&mut draws, 3_000) as usize] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(*counts.iter().max().unwrap() > 40, "evenly it would be 10 for each");
        let names: BTreeSet<_> = (0..5_000).map(|_| constants.name(&mut draws, 30)).collect();
        assert_eq!(names, (0..30).collect());
        assert!((0..1_000).all(|_| (1..=100).contains(&constants.item(&mut draws, 100))));
    }

    #[test]
    fn texts_have_the_length_that_is_asked_for() {
        let mut draws = Draws::new(1, "test");
        assert_eq!(text(&mut draws, 0).len(), 0);
        assert_eq!(exact::<13>(&mut draws).len(), 13);
        let lengths: BTreeSet<_> = (0..1_000).map(|_| data(&mut draws).len()).collect();
        assert_eq!(lengths, (26..=50).collect());
        let originals = (0..1_000)
            .filter(|_| data(&mut draws).windows(8).any(|part| part == b"ORIGINAL"))
            .count();
        assert!((60..140).contains(&originals), "{originals}");
    }
}
