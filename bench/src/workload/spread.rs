//! How many partitions transactions touch: payers and payees are chosen by where their keys lie.
//!
//! Accounts fall into classes, by the partitions that their keys lie on. Candidates are tried one
//! after another until each class has as many as the others; account numbers then go through one
//! class after the other, so that a number tells the class.

use std::collections::VecDeque;

use parsec_protocol::{Key, PartitionMap};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::payments::PaymentOptions;
use crate::draw::{BadWorkload, Draws, Ranks, Skew};

/// Candidates for accounts that are tried at once.
const CANDIDATES: u64 = 1_024;

/// Which share of the transactions touches how many partitions. The others touch one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The partitions of the cluster, which has the map [`PartitionMap::even`].
    pub partitions: u16,
    /// How many of 100 transactions touch several partitions; drawn for each by itself.
    pub percent: u8,
    /// How many partitions those touch; 2 at least.
    pub participants: u16,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partitions, percent, participants } = self;
        write!(f, "{percent} % on {participants} of {partitions} partitions")
    }
}

/// Which keys a transaction touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// So many accounts with one key each. They are those of payments, two by two, or a group.
    Group(u16),
    /// One payment of accounts with two keys, of which the payee's first one is not touched: three.
    OwnerAndHolding,
}

impl Pattern {
    /// Keys of an account.
    fn keys(self) -> u32 {
        match self {
            Self::Group(_) => 1,
            Self::OwnerAndHolding => 2,
        }
    }

    /// Keys of a transaction.
    fn touched(self) -> u16 {
        match self {
            Self::Group(size) => size,
            Self::OwnerAndHolding => 3,
        }
    }
}

/// Chooses payers and payees by their classes.
#[derive(Debug)]
pub(super) struct Spreader {
    spread: Spread,
    pattern: Pattern,
    map: PartitionMap,
    /// Accounts in each class.
    size: u32,
    /// Chooses one in a class.
    ranks: Ranks,
    draws: Draws,
    /// What is left of the accounts of the transaction that was begun.
    begun: VecDeque<u32>,
    multi_partition: u64,
}

impl Spreader {
    pub(super) fn new(
        options: &PaymentOptions,
        spread: Spread,
        pattern: Pattern,
    ) -> Result<Self, BadWorkload> {
        let Spread { partitions, percent, participants } = spread;
        let most = pattern.touched().min(partitions);
        let map = PartitionMap::even(partitions);
        let Some(map) = map.ok().filter(|_| (2..=most).contains(&participants)) else {
            return Err(BadWorkload::Participants { participants, partitions, most });
        };
        if percent > 100 {
            return Err(BadWorkload::Percent { percent });
        }
        if matches!(options.skew, Skew::Turns | Skew::OnePayee) {
            return Err(BadWorkload::SpreadSkew { skew: options.skew });
        }
        let accounts = options.accounts;
        let classes = u32::from(partitions).pow(pattern.keys());
        // A transaction within one partition may have all of its accounts in one class.
        let least = u32::from(pattern.touched()).max(4) * classes;
        if !accounts.is_multiple_of(classes) || accounts < least {
            return Err(BadWorkload::Classes { accounts, partitions, classes, least });
        }
        let size = accounts / classes;
        Ok(Self {
            spread,
            pattern,
            map,
            size,
            ranks: Ranks::new(size, options.skew)?,
            draws: Draws::new(options.seed, "spread"),
            begun: VecDeque::new(),
            multi_partition: 0,
        })
    }

    /// How many accounts there are.
    pub(super) fn accounts(&self) -> u32 {
        self.size * self.classes()
    }

    fn classes(&self) -> u32 {
        u32::from(self.spread.partitions).pow(self.pattern.keys())
    }

    /// The accounts: of all candidates, which come with their keys, the first ones of each class.
    pub(super) fn fill<T: Send, const KEYS: usize>(
        &self,
        candidate: impl Fn(u64) -> (T, [Key; KEYS]) + Sync,
    ) -> Vec<T> {
        let size = super::payments::index(self.size);
        let mut classes: Vec<Vec<T>> = (0..self.classes()).map(|_| Vec::new()).collect();
        let mut next = 0;
        while classes.iter().any(|class| class.len() < size) {
            let numbers = next..next + CANDIDATES;
            let tried: Vec<_> = numbers.into_par_iter().map(&candidate).collect();
            for (account, keys) in tried {
                let class = &mut classes[super::payments::index(self.class(&keys))];
                if class.len() < size {
                    class.push(account);
                }
            }
            next += CANDIDATES;
        }
        classes.into_iter().flatten().collect()
    }

    /// The class of an account with these keys.
    fn class(&self, keys: &[Key]) -> u32 {
        let partitions = u32::from(self.spread.partitions);
        keys.iter().fold(0, |class, key| class * partitions + u32::from(self.map.owner(key).0))
    }

    /// The next payment: who pays, and whom.
    pub(super) fn next_pair(&mut self) -> (u32, u32) {
        loop {
            if let (Some(from), Some(to)) = (self.begun.pop_front(), self.begun.pop_front()) {
                return (from, to);
            }
            self.begin();
        }
    }

    /// The accounts of the next transaction.
    pub(super) fn next_group(&mut self) -> Vec<u32> {
        self.begin();
        std::mem::take(&mut self.begun).into()
    }

    /// A number from 1 to `most`.
    pub(super) fn amount(&mut self, most: u64) -> u64 {
        1 + self.draws.below(most)
    }

    /// How many transactions were made to touch several partitions.
    pub(super) fn multi_partition(&self) -> u64 {
        self.multi_partition
    }

    /// Chooses the payments of the next transaction.
    fn begin(&mut self) {
        let is_multi = self.draws.below(100) < u64::from(self.spread.percent);
        self.multi_partition += u64::from(is_multi);
        let participants = if is_multi { self.spread.participants } else { 1 };
        let places = self.places(participants);
        match self.pattern {
            Pattern::Group(_) => {
                let mut chosen = Vec::with_capacity(places.len());
                for place in places {
                    chosen.push(self.member(place, &chosen));
                }
                self.begun = chosen.into();
            }
            Pattern::OwnerAndHolding => {
                let partitions = u32::from(self.spread.partitions);
                let payer = self.member(places[0] * partitions + places[1], &[]);
                // Where the payee's record lies makes no difference.
                let owner = self.below(partitions);
                let payee = self.member(owner * partitions + places[2], &[payer]);
                self.begun = [payer, payee].into();
            }
        }
    }

    /// A partition for each key of a transaction: so many different ones, each as often as the
    /// others, give or take one, in any order.
    fn places(&mut self, participants: u16) -> Vec<u32> {
        let mut partitions: Vec<u32> = (0..u32::from(self.spread.partitions)).collect();
        self.shuffle(&mut partitions);
        partitions.truncate(usize::from(participants));
        let touched = usize::from(self.pattern.touched());
        let mut places: Vec<u32> = partitions.into_iter().cycle().take(touched).collect();
        self.shuffle(&mut places);
        places
    }

    fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).expect("as many as there are partitions");
            items.swap(last, super::payments::index(self.below(bound)));
        }
    }

    /// An account of a class, none of those.
    fn member(&mut self, class: u32, others: &[u32]) -> u32 {
        loop {
            let account = class * self.size + self.ranks.draw(&mut self.draws);
            if !others.contains(&account) {
                return account;
            }
        }
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.draws.below(u64::from(bound))).expect("below a u32")
    }
}
