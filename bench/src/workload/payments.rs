//! Random payments between accounts, whatever runtime makes them.

use super::spread::Spreader;
use super::{BuildProgress, LoadTransaction, build};
use crate::draw::{BadWorkload, Pairs, Skew};

/// What each account has at first. No payer can run out of it: it is enough for 10^13 payments.
pub const BALANCE_START: u64 = 1_000_000_000_000_000;
/// The largest amount of one payment; the smallest is 1.
pub const AMOUNT_MAX: u64 = 100;

/// What all payment workloads may choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaymentOptions {
    /// The seed of everything random.
    pub seed: u64,
    /// How many accounts pay one another.
    pub accounts: u32,
    /// How often each of them is chosen, as payer and as payee.
    pub skew: Skew,
    /// How many of 100 payments go to the first account, whatever the skew says.
    pub conflict: u8,
}

impl Default for PaymentOptions {
    fn default() -> Self {
        Self { seed: 1, accounts: 1_000, skew: Skew::Uniform, conflict: 0 }
    }
}

impl std::fmt::Display for PaymentOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} accounts, {}, ", self.accounts, self.skew)?;
        if self.conflict > 0 {
            write!(f, "{} % to one, ", self.conflict)?;
        }
        write!(f, "seed {}", self.seed)
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

/// Who chooses payers and payees.
#[derive(Debug)]
enum Choice {
    /// Anyone may pay anyone.
    Free(Pairs),
    /// Anyone may pay anyone, but two payments in a row have nobody in common.
    Apart { pairs: Pairs, next: Option<(u32, u32)> },
    /// Anyone may pay whoever is of the same group: account number modulo so many.
    Groups { pairs: Pairs, groups: u32 },
    /// The partitions of their keys decide.
    Spread(Spreader),
}

/// An endless stream of payments, and where it leaves the accounts.
#[derive(Debug)]
pub(super) struct Payments {
    choice: Choice,
    made: u64,
    nonces: Vec<u64>,
    balances: Vec<u128>,
}

impl Payments {
    pub(super) fn new(options: &PaymentOptions) -> Result<Self, BadWorkload> {
        let pairs = Pairs::new(options.seed, options.accounts, options.skew)?;
        let pairs = pairs.with_conflict(options.conflict)?;
        Ok(Self::chosen_by(Choice::Free(pairs), options.accounts))
    }

    /// Payments within groups: accounts whose numbers modulo `groups` are equal.
    pub(super) fn grouped(options: &PaymentOptions, groups: u32) -> Result<Self, BadWorkload> {
        if groups == 1 {
            return Self::new(options);
        }
        if groups == 0 || !options.accounts.is_multiple_of(groups) {
            let allowed = format!("one, or a divisor of the {} accounts", options.accounts);
            return Err(BadWorkload::Value { knob: "tokens", value: groups.into(), allowed });
        }
        let pairs = Pairs::new(options.seed, options.accounts / groups, options.skew)?;
        Ok(Self::chosen_by(Choice::Groups { pairs, groups }, options.accounts))
    }

    /// Payments of which each two that make a transaction have four accounts.
    pub(super) fn apart(options: &PaymentOptions) -> Result<Self, BadWorkload> {
        if options.accounts < 4 {
            let (knob, value) = ("accounts", options.accounts.into());
            let allowed = "two payments apart need four".to_owned();
            return Err(BadWorkload::Value { knob, value, allowed });
        }
        let pairs = Pairs::new(options.seed, options.accounts, options.skew)?;
        let pairs = pairs.with_conflict(options.conflict)?;
        Ok(Self::chosen_by(Choice::Apart { pairs, next: None }, options.accounts))
    }

    /// Payments between the accounts that `spreader` chooses.
    pub(super) fn spread(spreader: Spreader) -> Self {
        let accounts = spreader.accounts();
        Self::chosen_by(Choice::Spread(spreader), accounts)
    }

    fn chosen_by(choice: Choice, accounts: u32) -> Self {
        let accounts = index(accounts);
        let balances = vec![u128::from(BALANCE_START); accounts];
        Self { choice, made: 0, nonces: vec![0; accounts], balances }
    }

    fn next_payment(&mut self) -> Payment {
        let ((from, to), amount) = match &mut self.choice {
            Choice::Free(pairs) => (pairs.next_pair(), pairs.amount(AMOUNT_MAX)),
            Choice::Apart { pairs, next } => {
                let pair = next.take().unwrap_or_else(|| {
                    let four = pairs.next_group(4);
                    // The one that is chosen by conflict is paid.
                    *next = Some((four[2], four[3]));
                    (four[1], four[0])
                });
                (pair, pairs.amount(AMOUNT_MAX))
            }
            Choice::Groups { pairs, groups } => {
                let group = u32::try_from(pairs.below(u64::from(*groups))).expect("below a u32");
                let (from, to) = pairs.next_pair();
                ((from * *groups + group, to * *groups + group), pairs.amount(AMOUNT_MAX))
            }
            Choice::Spread(spreader) => (spreader.next_pair(), spreader.amount(AMOUNT_MAX)),
        };
        let nonce = self.nonces[index(from)];
        let payment = Payment { number: self.made, nonce, from, to, amount };
        self.made += 1;
        self.nonces[index(from)] += 1;
        self.balances[index(from)] -= u128::from(amount);
        self.balances[index(to)] += u128::from(amount);
        payment
    }

    /// Makes the payments of the next `count` transactions, `N` of each, and the transactions from
    /// them, on all cores.
    pub(super) fn build<const N: usize>(
        &mut self,
        count: usize,
        progress: BuildProgress<'_>,
        transaction: impl Fn([Payment; N]) -> LoadTransaction + Sync,
    ) -> Vec<LoadTransaction> {
        let next = || std::array::from_fn(|_| self.next_payment());
        build(count, progress, next, transaction)
    }

    /// Makes the payments of the next `count` transactions, `N` of each, without the transactions.
    pub(super) fn skip<const N: usize>(&mut self, count: usize) {
        for _ in 0..count * N {
            self.next_payment();
        }
    }

    /// How many of the transactions so far were made to touch several partitions.
    pub(super) fn multi_partition(&self) -> u64 {
        match &self.choice {
            Choice::Free(_) | Choice::Apart { .. } | Choice::Groups { .. } => 0,
            Choice::Spread(spreader) => spreader.multi_partition(),
        }
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
