//! Payments as signed Ethereum transactions that call an OpenZeppelin ERC-20.

use alloy_primitives::{Address, U256};
use parsec_protocol::{Key, Transaction};
use parsec_runtimes::evm::keys;
use rayon::prelude::*;

use super::audit::big_endian;
use super::chain::{self, Unsigned, ordered};
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload};
use crate::account::Account;
use crate::contracts;
use crate::draw::BadWorkload;
use crate::twin::Twin;

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
    /// Someone who may use a token.
    fn candidate(&self, number: u64) -> Account {
        Account::derive(self.payments.seed, "erc20 account", number)
    }
}

/// Signed transfers of a token between random accounts. Gas costs nothing, so that nobody needs
/// Ether. Each account's transfers have consecutive nonces: their order matters.
///
/// Setup deploys the tokens, then their deployer pays each account its first balance.
#[derive(Debug)]
pub struct Erc20 {
    options: Erc20Options,
    spread: Option<Spread>,
    users: Users,
    payments: Payments,
    twin: Option<Twin>,
}

/// The tokens, and all who use them.
#[derive(Debug)]
struct Users {
    chain_id: u64,
    tokens: Vec<Address>,
    deployer: Account,
    accounts: Vec<Account>,
}

impl Users {
    /// Tokens that nobody uses yet.
    fn new(options: &Erc20Options, tokens: u32) -> Self {
        let deployer = Account::derive(options.payments.seed, "erc20 deployer", 0);
        let token = |nonce: u32| deployer.address().create(nonce.into());
        let tokens = (0..tokens).map(token).collect();
        Self { chain_id: options.chain_id, tokens, deployer, accounts: Vec::new() }
    }

    /// The token that an account holds, by the account's place among all.
    fn token(&self, account: usize) -> Address {
        self.tokens[account % self.tokens.len()]
    }

    fn deployment(&self, nonce: u64) -> Transaction {
        let holders = self.accounts.len() / self.tokens.len();
        let supply = U256::from(holders) * U256::from(BALANCE_START);
        let input = contracts::deploy_token("Parsec Token", "PARSEC", supply);
        Unsigned::create(nonce, input).sign(self.chain_id, &self.deployer)
    }

    /// A transfer to an account of what that holds.
    fn transfer(&self, from: &Account, nonce: u64, to: usize, amount: u64) -> Transaction {
        let input = contracts::transfer(self.accounts[to].address(), U256::from(amount));
        let call = Unsigned::call(nonce, TRANSFER_GAS, self.token(to), input);
        call.sign(self.chain_id, from)
    }
}

/// The key of what `holder` has of a token.
fn holding(token: &Address, holder: Address) -> Key {
    let slot = U256::from_be_bytes(contracts::balance_slot(holder).0);
    keys::storage(token, 0, slot)
}

impl Erc20 {
    /// The workload with these options, and one token for all.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: Erc20Options) -> Result<Self, BadWorkload> {
        Self::with_tokens(options, 1)
    }

    /// The workload with these options and so many tokens: 1, or a divisor of the number of
    /// accounts. Each account holds one of them, as many accounts the one as the other, and pays
    /// those who hold the same.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range, or there is a conflict share among several
    /// tokens: nobody holds all of them.
    pub fn with_tokens(options: Erc20Options, tokens: u32) -> Result<Self, BadWorkload> {
        if tokens > 1 && options.payments.conflict > 0 {
            let reason = "nobody can be paid in all tokens";
            return Err(BadWorkload::Together { one: "tokens", other: "conflict", reason });
        }
        let payments = Payments::grouped(&options.payments, tokens)?;
        let mut users = Users::new(&options, tokens);
        let derive = |account| options.candidate(u64::from(account));
        users.accounts = (0..options.payments.accounts).into_par_iter().map(derive).collect();
        Ok(Self { options, spread: None, users, payments, twin: None })
    }

    /// The workload with these options and accounts whose keys lie where `spread` wants them. A
    /// transfer touches three keys that stand on one partition each: its sender's record, and the
    /// token's slots for sender and payee.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 3 participants.
    pub fn spread(options: Erc20Options, spread: Spread) -> Result<Self, BadWorkload> {
        let spreader = Spreader::new(&options.payments, spread, Pattern::OwnerAndHolding)?;
        let mut users = Users::new(&options, 1);
        let token = users.tokens[0];
        let candidate = |number| {
            let account = options.candidate(number);
            let address = account.address();
            (account, [keys::account(&address), holding(&token, address)])
        };
        users.accounts = spreader.fill(candidate);
        let payments = Payments::spread(spreader);
        Ok(Self { options, spread: Some(spread), users, payments, twin: None })
    }

    /// This workload, whose transfers declare their footprints. Otherwise the cluster discovers
    /// them.
    ///
    /// # Errors
    /// [`BadWorkload::Twin`] if the setup fails where footprints are found.
    pub fn declaring(mut self) -> Result<Self, BadWorkload> {
        self.twin = Some(chain::declaring(&self, self.options.chain_id)?);
        Ok(self)
    }

    /// How many of the transactions built so far touch several partitions, if it was made with a
    /// [`Spread`].
    #[must_use]
    pub fn multi_partition(&self) -> u64 {
        self.payments.multi_partition()
    }

    /// The first token's address.
    #[must_use]
    pub fn token(&self) -> Address {
        self.users.tokens[0]
    }

    /// The accounts that pay one another.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = Address> {
        self.users.accounts.iter().map(Account::address)
    }
}

impl Workload for Erc20 {
    fn name(&self) -> String {
        let (payments, tokens) = (self.options.payments, self.users.tokens.len());
        match &self.spread {
            None if tokens == 1 => format!("erc20 transfer ({payments})"),
            None => format!("erc20 transfer ({tokens} tokens, {payments})"),
            Some(spread) => format!("erc20 transfer ({spread}, {payments})"),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let users = &self.users;
        let deployments: Vec<u64> = (0..).take(users.tokens.len()).collect();
        let nonces: Vec<u64> = (0..).skip(users.tokens.len()).take(users.accounts.len()).collect();
        let deploy = |nonce: u64| ordered(0, users.deployment(nonce));
        let pay = |(account, nonce): (usize, u64)| {
            ordered(0, users.transfer(&users.deployer, nonce, account, BALANCE_START))
        };
        vec![
            Stage {
                purpose: "deploy the tokens",
                transactions: deployments.into_par_iter().map(deploy).collect(),
                tolerated: None,
            },
            Stage {
                purpose: "pay each account",
                transactions: nonces.into_par_iter().enumerate().map(pay).collect(),
                tolerated: None,
            },
        ]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let users = &self.users;
        let transaction = |[Payment { nonce, from, to, amount, .. }]: [_; 1]| {
            let payer = &users.accounts[index(from)];
            ordered(from, users.transfer(payer, nonce, index(to), amount))
        };
        let mut built = self.payments.build(count, progress, transaction);
        if let Some(twin) = &self.twin {
            chain::declare(twin, &mut built, &users.accounts);
        }
        built
    }

    fn skip(&mut self, count: usize) {
        self.payments.skip::<1>(count);
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.payments.multi_partition())
    }

    /// The balances of each token by themselves.
    fn audit(&self) -> Audit {
        let tokens = self.users.tokens.len();
        let holders = self.addresses().zip(self.payments.balances()).enumerate();
        let mut balances = vec![Vec::new(); tokens];
        for (account, (holder, balance)) in holders {
            let key = holding(&self.users.token(account), holder);
            balances[account % tokens].push((key, *balance));
        }
        let audit = |balances| Audit::new(balances, big_endian);
        Audit::join(balances.into_iter().map(audit).collect())
    }
}
