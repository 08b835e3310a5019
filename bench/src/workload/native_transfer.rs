//! Payments as native programs: what the system itself costs, without signatures or contracts.

use parsec_protocol::{Delta, Key, Value};
use parsec_runtimes::native::{self, Program};

use super::audit::leading_number;
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload, salt};
use crate::draw::BadWorkload;

/// Balances that one setup transaction puts.
const SETUP_PUTS: usize = 256;

/// Transfers between random accounts of the first native table. Each names its two keys, so that
/// admission knows the footprint. Their order does not matter: transfers have no nonces.
#[derive(Debug)]
pub struct NativeTransfer {
    options: PaymentOptions,
    keys: Vec<Key>,
    payments: Payments,
}

impl NativeTransfer {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: PaymentOptions) -> Result<Self, BadWorkload> {
        let payments = Payments::new(&options)?;
        let keys = (0..options.accounts).map(|account| account_key(options.seed, account));
        Ok(Self { options, keys: keys.collect(), payments })
    }
}

/// The key of an account. The seed is part of it, so that runs with different seeds don't meet.
fn account_key(seed: u64, account: u32) -> Key {
    let bytes = [&b"pay"[..], &seed.to_be_bytes(), &account.to_be_bytes()].concat();
    native::key(bytes).expect("15 bytes are no long key")
}

impl Workload for NativeTransfer {
    fn name(&self) -> String {
        format!("native transfer ({})", self.options)
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
        let (keys, seed) = (&self.keys, self.options.seed);
        self.payments.build(count, progress, |Payment { number, from, to, amount, .. }| {
            let (from, to) = (&keys[index(from)], &keys[index(to)]);
            let transaction = Program::new()
                .transfer(from, to, u128::from(amount))
                .into_transaction(salt(seed, "native load", number));
            LoadTransaction { sender: None, transaction }
        })
    }

    fn audit(&self) -> Audit {
        let balances = self.payments.balances().iter().copied();
        Audit::new(self.keys.iter().cloned().zip(balances).collect(), leading_number)
    }
}
