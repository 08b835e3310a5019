//! Payments as native programs: what the system itself costs, without signatures or contracts.

use parsec_protocol::{Delta, Key, Transaction, Value};
use parsec_runtimes::native::{self, Program};

use super::audit::leading_number;
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload, salt};
use crate::draw::BadWorkload;

/// Balances that one setup transaction puts.
const SETUP_PUTS: usize = 256;

/// Transfers between random accounts of the first native table. Each transaction names its keys,
/// two for a transfer, so that admission knows the footprint. Their order does not matter:
/// transfers have no nonces.
#[derive(Debug)]
pub struct NativeTransfer {
    options: PaymentOptions,
    /// Where keys lie, if that is chosen.
    spread: Option<Spread>,
    /// Whether transactions are of two transfers instead of one.
    two: bool,
    /// Whether transactions declare their footprints, which admission takes from the program
    /// otherwise.
    declared: bool,
    keys: Vec<Key>,
    payments: Payments,
}

impl NativeTransfer {
    /// The workload with these options: one transfer in each transaction.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: PaymentOptions) -> Result<Self, BadWorkload> {
        let payments = Payments::new(&options)?;
        Ok(Self::anywhere(options, false, payments))
    }

    /// Two transfers in each transaction, between four accounts.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn two(options: PaymentOptions) -> Result<Self, BadWorkload> {
        let payments = Payments::apart(&options)?;
        Ok(Self::anywhere(options, true, payments))
    }

    /// One transfer in each transaction, hence two keys, which lie where `spread` wants them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 2 participants.
    pub fn one_spread(options: PaymentOptions, spread: Spread) -> Result<Self, BadWorkload> {
        Self::spread_by(options, spread, false)
    }

    fn anywhere(options: PaymentOptions, two: bool, payments: Payments) -> Self {
        let keys = (0..options.accounts).map(|account| account_key(options.seed, account.into()));
        Self { options, spread: None, two, declared: false, keys: keys.collect(), payments }
    }

    /// Two transfers in each transaction, hence four keys, which lie where `spread` wants them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 4 participants.
    pub fn spread(options: PaymentOptions, spread: Spread) -> Result<Self, BadWorkload> {
        Self::spread_by(options, spread, true)
    }

    fn spread_by(options: PaymentOptions, spread: Spread, two: bool) -> Result<Self, BadWorkload> {
        let pattern = Pattern::Group(if two { 4 } else { 2 });
        let spreader = Spreader::new(&options, spread, pattern)?;
        let candidate = |number| {
            let key = account_key(options.seed, number);
            (key.clone(), [key])
        };
        let keys = spreader.fill(candidate);
        let payments = Payments::spread(spreader);
        Ok(Self { options, spread: Some(spread), two, declared: false, keys, payments })
    }

    /// This workload, whose transactions declare their footprints.
    #[must_use]
    pub fn declaring(self) -> Self {
        Self { declared: true, ..self }
    }

    /// The key of each account.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// How many of the transactions built so far touch several partitions, if it was made with a
    /// [`Spread`].
    #[must_use]
    pub fn multi_partition(&self) -> u64 {
        self.payments.multi_partition()
    }
}

/// The transaction that makes these payments, which have at least one.
fn transaction(seed: u64, keys: &[Key], payments: &[Payment], declared: bool) -> LoadTransaction {
    let pay = |program: Program, Payment { from, to, amount, .. }: &Payment| {
        program.transfer(&keys[index(*from)], &keys[index(*to)], u128::from(*amount))
    };
    let program = payments.iter().fold(Program::new(), pay);
    let footprint = declared.then(|| {
        let footprint = program.footprint().expect("four keys at most are no long footprint");
        footprint.expect("a transfer chases nothing")
    });
    let salt = salt(seed, "native load", payments[0].number);
    let transaction = Transaction { footprint, ..program.into_transaction(salt) };
    LoadTransaction { sender: None, transaction }
}

/// The key of an account. The seed is part of it, so that runs with different seeds don't meet.
fn account_key(seed: u64, account: u64) -> Key {
    let bytes = [&b"pay"[..], &seed.to_be_bytes(), &account.to_be_bytes()].concat();
    native::key(bytes).expect("19 bytes are no long key")
}

impl Workload for NativeTransfer {
    fn name(&self) -> String {
        let what = if self.two { "two native transfers" } else { "native transfer" };
        match &self.spread {
            None => format!("{what} ({})", self.options),
            Some(spread) => format!("{what} ({spread}, {})", self.options),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let balance = Value::copy_from_slice(&Delta::from(i128::from(BALANCE_START)).0);
        let puts = self.keys.chunks(SETUP_PUTS).zip(0..).map(|(keys, number)| {
            let program =
                keys.iter().fold(Program::new(), |program, key| program.put(key, balance.clone()));
            let transaction =
                program.into_transaction(salt(self.options.seed, "native setup", number));
            LoadTransaction { sender: None, transaction }
        });
        let transactions = puts.collect();
        vec![Stage { purpose: "put the balances", transactions, tolerated: None }]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let (keys, seed, declared) = (&self.keys, self.options.seed, self.declared);
        match self.two {
            false => self
                .payments
                .build(count, progress, |one: [_; 1]| transaction(seed, keys, &one, declared)),
            true => self
                .payments
                .build(count, progress, |two: [_; 2]| transaction(seed, keys, &two, declared)),
        }
    }

    fn skip(&mut self, count: usize) {
        if self.two { self.payments.skip::<2>(count) } else { self.payments.skip::<1>(count) }
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.payments.multi_partition())
    }

    fn audit(&self) -> Audit {
        let balances = self.payments.balances().iter().copied();
        Audit::new(self.keys.iter().cloned().zip(balances).collect(), leading_number)
    }
}
