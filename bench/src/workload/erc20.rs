//! Payments as signed Ethereum transactions that call an OpenZeppelin ERC-20.

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, TxKind, U256};
use bytes::Bytes;
use parsec_protocol::{Key, RuntimeId, Transaction};
use parsec_runtimes::evm::keys;
use rayon::prelude::*;

use super::audit::big_endian;
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload};
use crate::account::Account;
use crate::contracts;
use crate::draw::BadWorkload;

/// Gas of a deployment of the token; it takes under a million.
const DEPLOY_GAS: u64 = 2_000_000;
/// Gas of a transfer; it takes 52,000 at most, when it is the first to its payee.
const TRANSFER_GAS: u64 = 60_000;

/// What an [`Erc20`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Erc20Options {
    /// The payments.
    pub payments: PaymentOptions,
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
}

impl Erc20Options {
    /// Someone who may use the token.
    fn candidate(&self, number: u64) -> Account {
        Account::derive(self.payments.seed, "erc20 account", number)
    }
}

/// Signed transfers of one token between random accounts. Gas costs nothing, so that nobody needs
/// Ether. Each account's transfers have consecutive nonces: their order matters.
///
/// Setup deploys the token, then its deployer pays each account its first balance.
#[derive(Debug)]
pub struct Erc20 {
    options: Erc20Options,
    spread: Option<Spread>,
    token: Token,
    payments: Payments,
}

/// The token, and all who use it.
#[derive(Debug)]
struct Token {
    chain_id: u64,
    address: Address,
    deployer: Account,
    accounts: Vec<Account>,
}

impl Token {
    /// A token that nobody uses yet.
    fn new(options: &Erc20Options) -> Self {
        let deployer = Account::derive(options.payments.seed, "erc20 deployer", 0);
        let address = deployer.address().create(0);
        Self { chain_id: options.chain_id, address, deployer, accounts: Vec::new() }
    }

    /// The key of what `holder` has of it.
    fn holding(&self, holder: Address) -> Key {
        let slot = U256::from_be_bytes(contracts::balance_slot(holder).0);
        keys::storage(&self.address, 0, slot)
    }

    fn deployment(&self) -> Transaction {
        let supply = U256::from(self.accounts.len()) * U256::from(BALANCE_START);
        let input = contracts::deploy_token("Parsec Token", "PARSEC", supply);
        let deployment = self.unpaid(0, DEPLOY_GAS, TxKind::Create, input);
        Transaction::new(RuntimeId::EVM, self.deployer.sign(deployment))
    }

    fn transfer(&self, from: &Account, nonce: u64, to: &Account, amount: u64) -> Transaction {
        let input = contracts::transfer(to.address(), U256::from(amount));
        let transfer = self.unpaid(nonce, TRANSFER_GAS, TxKind::Call(self.address), input);
        Transaction::new(RuntimeId::EVM, from.sign(transfer))
    }

    /// A transaction that pays nothing for its gas.
    fn unpaid(&self, nonce: u64, gas_limit: u64, to: TxKind, input: Bytes) -> TxEip1559 {
        let chain_id = self.chain_id;
        TxEip1559 { chain_id, nonce, gas_limit, to, input: input.into(), ..TxEip1559::default() }
    }
}

impl Erc20 {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: Erc20Options) -> Result<Self, BadWorkload> {
        let payments = Payments::new(&options.payments)?;
        let mut token = Token::new(&options);
        let derive = |account| options.candidate(u64::from(account));
        token.accounts = (0..options.payments.accounts).into_par_iter().map(derive).collect();
        Ok(Self { options, spread: None, token, payments })
    }

    /// The workload with these options and accounts whose keys lie where `spread` wants them. A
    /// transfer touches three keys that stand on one partition each: its sender's record, and the
    /// token's slots for sender and payee.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 3 participants.
    pub fn spread(options: Erc20Options, spread: Spread) -> Result<Self, BadWorkload> {
        let spreader = Spreader::new(&options.payments, spread, Pattern::OwnerAndHolding)?;
        let mut token = Token::new(&options);
        let candidate = |number| {
            let account = options.candidate(number);
            let keys = [keys::account(&account.address()), token.holding(account.address())];
            (account, keys)
        };
        token.accounts = spreader.fill(candidate);
        Ok(Self { options, spread: Some(spread), token, payments: Payments::spread(spreader) })
    }

    /// How many of the transactions built so far touch several partitions, if it was made with a
    /// [`Spread`].
    #[must_use]
    pub fn multi_partition(&self) -> u64 {
        self.payments.multi_partition()
    }

    /// The token's address.
    #[must_use]
    pub fn token(&self) -> Address {
        self.token.address
    }

    /// The accounts that pay one another.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = Address> {
        self.token.accounts.iter().map(Account::address)
    }
}

impl Workload for Erc20 {
    fn name(&self) -> String {
        match &self.spread {
            None => format!("erc20 transfer ({})", self.options.payments),
            Some(spread) => format!("erc20 transfer ({spread}, {})", self.options.payments),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let token = &self.token;
        let ordered = |transaction| LoadTransaction { sender: Some(0), transaction };
        let nonces: Vec<u64> = (1..).take(token.accounts.len()).collect();
        let pay = |(account, nonce)| {
            ordered(token.transfer(&token.deployer, nonce, account, BALANCE_START))
        };
        vec![
            Stage {
                purpose: "deploy the token",
                transactions: vec![ordered(token.deployment())],
                tolerated: None,
            },
            Stage {
                purpose: "pay each account",
                transactions: token.accounts.par_iter().zip(nonces).map(pay).collect(),
                tolerated: None,
            },
        ]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let token = &self.token;
        self.payments.build(count, progress, |[Payment { nonce, from, to, amount, .. }]| {
            let (payer, payee) = (&token.accounts[index(from)], &token.accounts[index(to)]);
            let transaction = token.transfer(payer, nonce, payee, amount);
            LoadTransaction { sender: Some(from), transaction }
        })
    }

    fn skip(&mut self, count: usize) {
        self.payments.skip::<1>(count);
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.payments.multi_partition())
    }

    fn audit(&self) -> Audit {
        let slots = self.addresses().map(|holder| self.token.holding(holder));
        let balances = self.payments.balances().iter().copied();
        Audit::new(slots.zip(balances).collect(), big_endian)
    }
}
