//! Payments as signed transfers of Ether.

use alloy_primitives::{Address, TxKind, U256};
use bytes::Bytes;
use parsec_protocol::Transaction;
use parsec_runtimes::evm::keys;
use rayon::prelude::*;

use super::audit::leading_number;
use super::chain::{self, Unsigned, ordered};
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload};
use crate::account::Account;
use crate::draw::BadWorkload;
use crate::twin::Twin;

/// Gas of a transfer.
const GAS: u64 = 21_000;

/// What an [`Ether`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EtherOptions {
    /// The payments.
    pub payments: PaymentOptions,
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
    /// Whether transfers declare their footprints. Otherwise the cluster discovers them.
    pub declared: bool,
}

/// Signed transfers between random accounts, in wei. Gas costs nothing.
///
/// Ether can't be made by any transaction: one account has it [from the
/// genesis](Workload::genesis), and pays all others in the setup.
#[derive(Debug)]
pub struct Ether {
    options: EtherOptions,
    spread: Option<Spread>,
    bank: Account,
    accounts: Vec<Account>,
    payments: Payments,
    twin: Option<Twin>,
}

impl Ether {
    /// The workload with these options, with accounts anywhere or where `spread` wants them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 2 participants.
    pub fn new(options: EtherOptions, spread: Option<Spread>) -> Result<Self, BadWorkload> {
        let PaymentOptions { seed, accounts, .. } = options.payments;
        let candidate = |number: u64| Account::derive(seed, "ether account", number);
        let (accounts, payments) = match spread {
            None => {
                let payments = Payments::new(&options.payments)?;
                let accounts = 0..u64::from(accounts);
                (accounts.into_par_iter().map(candidate).collect(), payments)
            }
            Some(spread) => {
                let spreader = Spreader::new(&options.payments, spread, Pattern::Group(2))?;
                let placed = |number| {
                    let account = candidate(number);
                    (account, [keys::account(&account.address())])
                };
                (spreader.fill(placed), Payments::spread(spreader))
            }
        };
        let bank = Account::derive(seed, "ether bank", 0);
        let mut workload = Self { options, spread, bank, accounts, payments, twin: None };
        if options.declared {
            workload.twin = Some(chain::declaring(&workload, options.chain_id)?);
        }
        Ok(workload)
    }
}

fn transfer(chain_id: u64, from: &Account, nonce: u64, to: &Account, amount: u64) -> Transaction {
    let to = TxKind::Call(to.address());
    let value = U256::from(amount);
    let unsigned = Unsigned { nonce, gas: GAS, to, value, input: Bytes::new() };
    unsigned.sign(chain_id, from)
}

impl Workload for Ether {
    fn name(&self) -> String {
        let payments = self.options.payments;
        match &self.spread {
            None => format!("ether transfer ({payments})"),
            Some(spread) => format!("ether transfer ({spread}, {payments})"),
        }
    }

    fn genesis(&self) -> Vec<(Address, U256)> {
        let all = U256::from(self.accounts.len()) * U256::from(BALANCE_START);
        vec![(self.bank.address(), all)]
    }

    fn setup(&self) -> Vec<Stage> {
        let nonces: Vec<u64> = (0..).take(self.accounts.len()).collect();
        let pay = |(account, nonce)| {
            let chain_id = self.options.chain_id;
            ordered(0, transfer(chain_id, &self.bank, nonce, account, BALANCE_START))
        };
        let transactions = self.accounts.par_iter().zip(nonces).map(pay).collect();
        vec![Stage { purpose: "pay each account", transactions, tolerated: None }]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let (accounts, chain_id) = (&self.accounts, self.options.chain_id);
        let transaction = |[Payment { nonce, from, to, amount, .. }]: [_; 1]| {
            let (payer, payee) = (&accounts[index(from)], &accounts[index(to)]);
            ordered(from, transfer(chain_id, payer, nonce, payee, amount))
        };
        let mut built = self.payments.build(count, progress, transaction);
        if let Some(twin) = &self.twin {
            chain::declare(twin, &mut built, &self.accounts);
        }
        built
    }

    fn skip(&mut self, count: usize) {
        self.payments.skip::<1>(count);
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.payments.multi_partition())
    }

    fn audit(&self) -> Audit {
        let keys = self.accounts.iter().map(|account| keys::account(&account.address()));
        let balances = self.payments.balances().iter().copied();
        Audit::new(keys.zip(balances).collect(), leading_number)
    }
}
