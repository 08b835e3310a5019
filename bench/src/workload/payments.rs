//! Random payments between accounts, whatever runtime makes them.

use rayon::prelude::*;

use super::{BuildProgress, LoadTransaction};
use crate::draw::{BadWorkload, Pairs, Skew};

/// What each account has at first. No payer can run out of it: it is enough for 10^13 payments.
pub const BALANCE_START: u64 = 1_000_000_000_000_000;
/// The largest amount of one payment; the smallest is 1.
pub const AMOUNT_MAX: u64 = 100;

/// Transactions that are built between two reports of progress.
const BUILD_CHUNK: usize = 4_096;

/// What all payment workloads may choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaymentOptions {
    /// The seed of everything random.
    pub seed: u64,
    /// How many accounts pay one another.
    pub accounts: u32,
    /// How often each of them is chosen, as payer and as payee.
    pub skew: Skew,
}

impl Default for PaymentOptions {
    fn default() -> Self {
        Self { seed: 1, accounts: 1_000, skew: Skew::Uniform }
    }
}

impl std::fmt::Display for PaymentOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} accounts, {}, seed {}", self.accounts, self.skew, self.seed)
    }
}

/// One payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payment {
    /// Its number, from 0.
    pub(super) number: u64,
    /// How many payments its payer made before.
    pub(super) nonce: u64,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) amount: u64,
}

/// An endless stream of payments, and where it leaves the accounts.
#[derive(Debug)]
pub(super) struct Payments {
    pairs: Pairs,
    made: u64,
    nonces: Vec<u64>,
    balances: Vec<u128>,
}

impl Payments {
    pub(super) fn new(options: &PaymentOptions) -> Result<Self, BadWorkload> {
        let pairs = Pairs::new(options.seed, options.accounts, options.skew)?;
        let accounts = index(options.accounts);
        let balances = vec![u128::from(BALANCE_START); accounts];
        Ok(Self { pairs, made: 0, nonces: vec![0; accounts], balances })
    }

    fn next_payment(&mut self) -> Payment {
        let (from, to) = self.pairs.next_pair();
        let amount = self.pairs.amount(AMOUNT_MAX);
        let nonce = self.nonces[index(from)];
        let payment = Payment { number: self.made, nonce, from, to, amount };
        self.made += 1;
        self.nonces[index(from)] += 1;
        self.balances[index(from)] -= u128::from(amount);
        self.balances[index(to)] += u128::from(amount);
        payment
    }

    /// Makes the next `count` payments, and of each its transaction, on all cores.
    pub(super) fn build(
        &mut self,
        count: usize,
        progress: BuildProgress<'_>,
        transaction: impl Fn(Payment) -> LoadTransaction + Sync,
    ) -> Vec<LoadTransaction> {
        let mut built = Vec::with_capacity(count);
        progress(0);
        while built.len() < count {
            let chunk = BUILD_CHUNK.min(count - built.len());
            let payments: Vec<_> = (0..chunk).map(|_| self.next_payment()).collect();
            built.par_extend(payments.into_par_iter().map(&transaction));
            progress(built.len());
        }
        built
    }

    /// What each account has when all payments so far are made.
    pub(super) fn balances(&self) -> &[u128] {
        &self.balances
    }
}

/// The number of an account as an index.
pub(super) fn index(account: u32) -> usize {
    usize::try_from(account).expect("memory is addressed with at least 32 bits")
}
