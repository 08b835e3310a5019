//! Choices from a seed: the same ones on every machine and in every version.

use blake3::{Hasher, OutputReader};
use serde::{Deserialize, Serialize};

mod bad;

pub use bad::BadWorkload;

/// Bytes of output that are taken at once.
const BLOCK_BYTES: usize = 64;

/// An endless stream of numbers that is a function of a seed and a purpose: BLAKE3's extendable
/// output.
#[derive(Debug, Clone)]
pub struct Draws {
    output: OutputReader,
    block: [u8; BLOCK_BYTES],
    used: usize,
}

impl Draws {
    /// The stream of `seed` for `purpose`. Streams for different purposes have nothing in common.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let output = seeded(seed, purpose).finalize_xof();
        Self { output, block: [0; BLOCK_BYTES], used: BLOCK_BYTES }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == BLOCK_BYTES {
            self.output.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_be_bytes(bytes)
    }

    /// A number below `bound`, each as likely as the others (to one in 2^64 / `bound`).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        let scaled = (u128::from(self.next_u64()) * u128::from(bound)) >> 64;
        u64::try_from(scaled).expect("below bound, which is a u64")
    }
}

/// 32 bytes that are a function of a seed, a purpose and a number.
#[must_use]
pub fn bytes32(seed: u64, purpose: &str, number: u64) -> [u8; 32] {
    *seeded(seed, purpose).update(&number.to_be_bytes()).finalize().as_bytes()
}

fn seeded(seed: u64, purpose: &str) -> Hasher {
    let mut hasher = Hasher::new_derive_key("parsec 2026 benchmark");
    hasher.update(&seed.to_be_bytes()).update(purpose.as_bytes()).update(&[0]);
    hasher
}

/// How often each of a number of accounts is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skew {
    /// Each as often as the others.
    Uniform,
    /// The account of rank k (from 1) in proportion to `1 / k^exponent`. 0.99 is the usual one;
    /// from 0 to [`Skew::EXPONENT_MAX`].
    Zipf {
        /// The exponent.
        exponent: f64,
    },
    /// All take turns: none is chosen again before every other one was. Nobody meets anybody.
    Turns,
    /// Payers take turns; whoever it is, the first account is paid.
    OnePayee,
}

impl Skew {
    /// The largest exponent: beyond it nearly all choices would be the first account.
    pub const EXPONENT_MAX: f64 = 3.0;
}

impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { exponent } => write!(f, "zipf {exponent}"),
            Self::Turns => f.write_str("taking turns"),
            Self::OnePayee => f.write_str("one payee"),
        }
    }
}

/// Reads `uniform`, `turns`, `one-payee`, or the exponent of a Zipf distribution.
impl std::str::FromStr for Skew {
    type Err = BadWorkload;

    fn from_str(text: &str) -> Result<Self, BadWorkload> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "turns" => Ok(Self::Turns),
            "one-payee" => Ok(Self::OnePayee),
            _ => match text.parse() {
                Ok(exponent) if (0.0..=Self::EXPONENT_MAX).contains(&exponent) => {
                    Ok(Self::Zipf { exponent })
                }
                Ok(exponent) => Err(BadWorkload::Exponent { exponent }),
                Err(_) => Err(BadWorkload::Skew { text: text.to_owned() }),
            },
        }
    }
}

/// Most accounts of a workload: the tables for them stay well under a gigabyte.
pub const ACCOUNTS_MAX: u32 = 4_000_000;

/// Chooses numbers below a count, each by itself: evenly, or the low ones more often.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    count: u32,
    /// For a skewed choice: the number below which a draw means this rank, or one before it.
    thresholds: Vec<u64>,
}

impl Ranks {
    pub(crate) fn new(count: u32, skew: Skew) -> Result<Self, BadWorkload> {
        let thresholds = match skew {
            Skew::Uniform | Skew::Turns | Skew::OnePayee => Vec::new(),
            Skew::Zipf { exponent } if (0.0..=Skew::EXPONENT_MAX).contains(&exponent) => {
                zipf_thresholds(count, exponent)
            }
            Skew::Zipf { exponent } => return Err(BadWorkload::Exponent { exponent }),
        };
        Ok(Self { count, thresholds })
    }

    /// The next choice.
    pub(crate) fn draw(&self, draws: &mut Draws) -> u32 {
        let chosen = match self.thresholds.is_empty() {
            true => draws.below(u64::from(self.count)),
            false => {
                let draw = draws.next_u64();
                let rank = self.thresholds.partition_point(|threshold| *threshold <= draw);
                u64::try_from(rank).unwrap_or(u64::MAX).min(u64::from(self.count - 1))
            }
        };
        u32::try_from(chosen).expect("below count, which is a u32")
    }
}

/// Chooses pairs of distinct accounts.
#[derive(Debug, Clone)]
pub struct Pairs {
    draws: Draws,
    accounts: u32,
    skew: Skew,
    /// How many of 100 payees are the first account.
    conflict: u8,
    /// Whose turn it is, where they take turns.
    turn: u32,
    ranks: Ranks,
}

impl Pairs {
    /// Pairs of `accounts` accounts, both sides skewed alike.
    ///
    /// # Errors
    /// [`BadWorkload`] if there are too few or too many accounts, or the exponent is out of range.
    pub fn new(seed: u64, accounts: u32, skew: Skew) -> Result<Self, BadWorkload> {
        if !(2..=ACCOUNTS_MAX).contains(&accounts) {
            return Err(BadWorkload::Accounts { accounts, most: ACCOUNTS_MAX });
        }
        let ranks = Ranks::new(accounts, skew)?;
        Ok(Self { draws: Draws::new(seed, "pairs"), accounts, skew, conflict: 0, turn: 0, ranks })
    }

    /// These pairs, of which `percent` in 100 pay the first account, whatever the skew says: the
    /// conflict share.
    ///
    /// # Errors
    /// [`BadWorkload`] if that is more than 100.
    pub fn with_conflict(mut self, percent: u8) -> Result<Self, BadWorkload> {
        if percent > 100 {
            return Err(BadWorkload::Share { knob: "conflict", percent });
        }
        self.conflict = percent;
        Ok(self)
    }

    /// Some different accounts, chosen as those of a pair are. There must be as many.
    pub fn next_group(&mut self, size: usize) -> Vec<u32> {
        let mut group = Vec::with_capacity(size);
        if self.conflicts() || self.skew == Skew::OnePayee {
            group.push(0);
        }
        while group.len() < size {
            let account = match self.skew {
                Skew::Turns => self.next_turn(0),
                Skew::OnePayee => self.next_turn(1),
                Skew::Uniform | Skew::Zipf { .. } => self.ranks.draw(&mut self.draws),
            };
            if !group.contains(&account) {
                group.push(account);
            }
        }
        group
    }

    /// Whether what comes next is to touch the first account.
    fn conflicts(&mut self) -> bool {
        self.conflict > 0 && self.draws.below(100) < u64::from(self.conflict)
    }

    /// The next pair: who pays, and whom.
    pub fn next_pair(&mut self) -> (u32, u32) {
        match self.skew {
            Skew::Turns => return (self.next_turn(0), self.next_turn(0)),
            Skew::OnePayee => return (self.next_turn(1), 0),
            Skew::Uniform | Skew::Zipf { .. } => {}
        }
        if self.conflicts() {
            return (self.other_than(0), 0);
        }
        let from = self.ranks.draw(&mut self.draws);
        (from, self.other_than(from))
    }

    fn other_than(&mut self, from: u32) -> u32 {
        loop {
            let to = self.ranks.draw(&mut self.draws);
            if to != from {
                return to;
            }
        }
    }

    /// A number from 1 to `most`.
    pub fn amount(&mut self, most: u64) -> u64 {
        1 + self.draws.below(most)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draws.below(bound)
    }

    /// The account whose turn it is, of those from `first` on.
    fn next_turn(&mut self, first: u32) -> u32 {
        let account = self.turn.max(first);
        self.turn = (account + 1) % self.accounts;
        account
    }
}

/// The cumulated shares of each rank, of 2^64.
#[allow(clippy::cast_possible_truncation, reason = "a share of 2^64, rounded down")]
fn zipf_thresholds(accounts: u32, exponent: f64) -> Vec<u64> {
    let weight = |rank: u32| f64::from(rank).powf(-exponent);
    let total: f64 = (1..=accounts).map(weight).sum();
    let mut sum = 0.0;
    let cumulated = (1..=accounts).map(|rank| {
        sum += weight(rank);
        (sum / total * 2f64.powi(64)) as u64
    });
    cumulated.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(skew: Skew, accounts: u32, pairs: usize) -> Vec<usize> {
        let mut chooser = Pairs::new(1, accounts, skew).unwrap();
        let mut counts = vec![0; accounts as usize];
        for _ in 0..pairs {
            let (from, to) = chooser.next_pair();
            assert_ne!(from, to);
            counts[from as usize] += 1;
            counts[to as usize] += 1;
        }
        counts
    }

    #[test]
    fn streams_never_change() {
        let mut draws = Draws::new(1, "test");
        assert_eq!(
            [draws.next_u64(), draws.next_u64()],
            [3_603_081_812_477_955_018, 14_107_860_530_484_057_975]
        );
    }

    #[test]
    fn uniform_choices_are_even() {
        let counts = counts(Skew::Uniform, 10, 50_000);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_choices_fall_with_the_rank() {
        let counts = counts(Skew::Zipf { exponent: 1.0 }, 100, 100_000);
        // Distinct pairs flatten the head a little: 1 / H(100) would be 19 %.
        assert!((30_000..40_000).contains(&counts[0]), "{counts:?}");
        let ratio = counts[9] as f64 / counts[19] as f64;
        assert!((1.7..2.3).contains(&ratio), "{ratio}");
        assert!(counts.iter().all(|count| *count > 0));
    }

    #[test]
    fn impossible_workloads_are_refused() {
        let build = |accounts, exponent| Pairs::new(1, accounts, Skew::Zipf { exponent });
        assert!(matches!(build(1, 1.0), Err(BadWorkload::Accounts { .. })));
        assert!(matches!(build(ACCOUNTS_MAX + 1, 1.0), Err(BadWorkload::Accounts { .. })));
        assert!(matches!(build(2, f64::NAN), Err(BadWorkload::Exponent { .. })));
        assert!(matches!(build(2, 3.1), Err(BadWorkload::Exponent { .. })));
    }

    #[test]
    fn turns_meet_nobody_before_everybody_had_one() {
        let mut chooser = Pairs::new(1, 6, Skew::Turns).unwrap();
        let pairs: Vec<_> = (0..4).map(|_| chooser.next_pair()).collect();
        assert_eq!(pairs, [(0, 1), (2, 3), (4, 5), (0, 1)]);
        let mut chooser = Pairs::new(1, 3, Skew::OnePayee).unwrap();
        let pairs: Vec<_> = (0..3).map(|_| chooser.next_pair()).collect();
        assert_eq!(pairs, [(1, 0), (2, 0), (1, 0)]);
    }

    #[test]
    fn turns_of_an_odd_number_of_accounts_are_pairs_of_two() {
        let mut chooser = Pairs::new(1, 3, Skew::Turns).unwrap();
        assert!((0..9).map(|_| chooser.next_pair()).all(|(from, to)| from != to));
    }

    proptest! {
        #[test]
        fn draws_stay_below_their_bound(seed: u64, bound in 1u64..) {
            let mut draws = Draws::new(seed, "test");
            for _ in 0..20 {
                prop_assert!(draws.below(bound) < bound);
            }
        }

        #[test]
        fn pairs_are_distinct_and_in_range(
            seed: u64,
            accounts in 2u32..50,
            exponent in 0.0..=Skew::EXPONENT_MAX,
        ) {
            let mut pairs = Pairs::new(seed, accounts, Skew::Zipf { exponent }).unwrap();
            for _ in 0..50 {
                let (from, to) = pairs.next_pair();
                prop_assert!(from != to && from < accounts && to < accounts);
            }
        }
    }
}
