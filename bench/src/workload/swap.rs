//! Swaps in pools in the manner of Uniswap v2.

use alloy_primitives::{Address, U256};
use parsec_protocol::{Key, Value};
use parsec_runtimes::evm::keys;
use rayon::prelude::*;

use super::chain::{self, Unsigned, ordered};
use super::payments::{PaymentOptions, index};
use super::{Audit, AuditFailure, BuildProgress, Commits, LoadTransaction, Stage, Workload, build};
use crate::account::Account;
use crate::contracts;
use crate::draw::{BadWorkload, Pairs};
use crate::twin::Twin;

/// What each account, and each pool, has of each token of its pool at first: it fits the pool's
/// 112 bits with much to spare, and nobody can run out of it.
const FUNDS: u64 = 1 << 60;
/// What is swapped is between these.
const AMOUNT_MIN: u64 = 1_000;
const AMOUNT_MORE: u64 = 1_000;
/// Gas of a swap; it takes under 100,000.
const SWAP_GAS: u64 = 200_000;
/// Gas of the calls of the setup.
const SETUP_GAS: u64 = 200_000;
/// Transactions that each account sends in the setup: an approval of each token.
const FIRST_NONCE: u64 = 2;

/// What a [`Swap`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SwapOptions {
    /// Accounts that swap, how they are chosen, and the seed.
    pub accounts: PaymentOptions,
    /// How many pools there are: 1, or a divisor of the number of accounts. Each account swaps in
    /// one of them.
    pub pools: u32,
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
    /// Whether swaps declare their footprints. Otherwise the cluster discovers them.
    pub declared: bool,
}

/// Signed swaps of one token of a pool for the other, either way. All swaps in a pool read and
/// write its reserves: none can run beside another.
#[derive(Debug)]
pub struct Swap {
    options: SwapOptions,
    market: Market,
    chooser: Pairs,
    /// How many swaps each account made.
    made: Vec<u64>,
    twin: Option<Twin>,
}

/// The pools, and who swaps there.
#[derive(Debug)]
struct Market {
    chain_id: u64,
    owner: Account,
    pools: Vec<Pool>,
    accounts: Vec<Account>,
}

/// A pool and its two tokens.
#[derive(Debug, Clone, Copy)]
struct Pool {
    tokens: [Address; 2],
    address: Address,
}

/// One swap.
#[derive(Debug, Clone, Copy)]
struct Planned {
    account: u32,
    nonce: u64,
    amount: u64,
    first: bool,
}

impl Swap {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: SwapOptions) -> Result<Self, BadWorkload> {
        let SwapOptions { accounts: PaymentOptions { seed, accounts, skew, .. }, pools, .. } =
            options;
        let chooser = Pairs::new(seed, accounts, skew)?;
        if pools == 0 || !accounts.is_multiple_of(pools) {
            let allowed = format!("a divisor of the {accounts} accounts");
            return Err(BadWorkload::Value { knob: "tokens", value: pools.into(), allowed });
        }
        let owner = Account::derive(seed, "swap owner", 0);
        let pool = |number: u32| {
            let contract = |nonce: u32| owner.address().create((3 * number + nonce).into());
            Pool { tokens: [contract(0), contract(1)], address: contract(2) }
        };
        let derive = |number: u32| Account::derive(seed, "swap account", number.into());
        let market = Market {
            chain_id: options.chain_id,
            owner,
            pools: (0..pools).map(pool).collect(),
            accounts: (0..accounts).into_par_iter().map(derive).collect(),
        };
        let made = vec![0; index(accounts)];
        let mut workload = Self { options, market, chooser, made, twin: None };
        if options.declared {
            workload.twin = Some(chain::declaring(&workload, options.chain_id)?);
        }
        Ok(workload)
    }
}

impl Market {
    /// The pool in which an account swaps.
    fn pool(&self, account: usize) -> &Pool {
        &self.pools[account % self.pools.len()]
    }

    fn deployments(&self) -> Vec<LoadTransaction> {
        let inputs = self.pools.iter().flat_map(|pool| {
            [
                contracts::deploy_mintable("First", "A"),
                contracts::deploy_mintable("Second", "B"),
                contracts::deploy_pool(pool.tokens[0], pool.tokens[1]),
            ]
        });
        let deploy = |(input, nonce)| {
            ordered(0, Unsigned::create(nonce, input).sign(self.chain_id, &self.owner))
        };
        inputs.zip(0..).map(deploy).collect()
    }

    /// Calls of the owner: who is to have tokens gets them.
    fn mints(&self) -> Vec<Unsigned> {
        let accounts = self.accounts.iter().map(Account::address).enumerate();
        let accounts = accounts.map(|(account, holder)| (self.pool(account), holder));
        let pools = self.pools.iter().map(|pool| (pool, pool.address));
        let mint = |(pool, holder): (&Pool, Address)| {
            pool.tokens.map(|token| (token, contracts::mint(holder, U256::from(FUNDS))))
        };
        let calls = accounts.chain(pools).flat_map(mint);
        let first = 3 * self.pools.len();
        let nonces = (0..).skip(first);
        calls
            .zip(nonces)
            .map(|((token, input), nonce)| Unsigned::call(nonce, SETUP_GAS, token, input))
            .collect()
    }

    /// The pools take what they have for their reserves.
    fn syncs(&self, first: u64) -> Vec<LoadTransaction> {
        let sync = |(pool, nonce): (&Pool, u64)| {
            let call = Unsigned::call(nonce, SETUP_GAS, pool.address, contracts::sync_pool());
            ordered(0, call.sign(self.chain_id, &self.owner))
        };
        self.pools.iter().zip(first..).map(sync).collect()
    }

    /// Everyone allows its pool to take tokens.
    fn approvals(&self) -> Vec<LoadTransaction> {
        let approve = |(account, signer): (usize, &Account)| {
            let pool = self.pool(account);
            let input = contracts::approve(pool.address, U256::from(FUNDS));
            let sender = u32::try_from(account).expect("there are at most four million");
            let call = |nonce: u64, token: Address| {
                let call = Unsigned::call(nonce, SETUP_GAS, token, input.clone());
                ordered(sender, call.sign(self.chain_id, signer))
            };
            [call(0, pool.tokens[0]), call(1, pool.tokens[1])]
        };
        self.accounts.par_iter().enumerate().flat_map_iter(approve).collect()
    }

    fn swap(&self, Planned { account, nonce, amount, first }: Planned) -> LoadTransaction {
        let signer = &self.accounts[index(account)];
        let pool = self.pool(index(account)).address;
        let input = contracts::swap(U256::from(amount), first, signer.address());
        let call = Unsigned::call(nonce, SWAP_GAS, pool, input);
        ordered(account, call.sign(self.chain_id, signer))
    }
}

impl Workload for Swap {
    fn name(&self) -> String {
        let SwapOptions { accounts, pools, .. } = self.options;
        match pools {
            1 => format!("swap ({accounts})"),
            pools => format!("swap ({pools} pools, {accounts})"),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let market = &self.market;
        let mints = market.mints();
        let next = mints.last().map_or(0, |last| last.nonce + 1);
        let sign = |call: Unsigned| ordered(0, call.sign(market.chain_id, &market.owner));
        let stage = |purpose, transactions| Stage { purpose, transactions, tolerated: None };
        vec![
            stage("deploy tokens and pools", market.deployments()),
            stage("give everyone tokens", mints.into_par_iter().map(sign).collect()),
            stage("open the pools", market.syncs(next)),
            stage("allow the pools to take them", market.approvals()),
        ]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let Self { market, chooser, made, twin, .. } = self;
        let next = || next_swap(chooser, made);
        let mut built = build(count, progress, next, |planned| market.swap(planned));
        if let Some(twin) = twin {
            chain::declare(twin, &mut built, &market.accounts);
        }
        built
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            next_swap(&mut self.chooser, &mut self.made);
        }
    }

    /// Each pool by itself: no token was made or lost, the reserves are what the pool has, and
    /// their product did not fall. If everything committed, each account's nonce says so.
    fn audit(&self) -> Audit {
        let pools = self.market.pools.len();
        let accounts = self.market.accounts.iter().map(Account::address).zip(&self.made);
        let mut members = vec![Vec::new(); pools];
        for (account, (address, made)) in accounts.enumerate() {
            members[account % pools].push((address, FIRST_NONCE + made));
        }
        let audits = self.market.pools.iter().zip(members);
        Audit::join(audits.map(|(pool, members)| audit(pool, members)).collect())
    }
}

fn next_swap(chooser: &mut Pairs, made: &mut [u64]) -> Planned {
    let account = chooser.next_group(1)[0];
    let made = &mut made[index(account)];
    let nonce = FIRST_NONCE + *made;
    *made += 1;
    let amount = AMOUNT_MIN + chooser.below(AMOUNT_MORE);
    Planned { account, nonce, amount, first: chooser.below(2) == 0 }
}

/// The key of what `holder` has of a token.
fn holding(token: &Address, holder: Address) -> Key {
    keys::storage(token, 0, U256::from_be_bytes(contracts::balance_slot(holder).0))
}

/// The audit of a pool, whose members have these addresses and nonces.
fn audit(pool: &Pool, members: Vec<(Address, u64)>) -> Audit {
    let mut keys = vec![keys::storage(&pool.address, 0, contracts::RESERVES_SLOT)];
    for token in &pool.tokens {
        keys.push(holding(token, pool.address));
        keys.extend(members.iter().map(|(holder, _)| holding(token, *holder)));
    }
    keys.extend(members.iter().map(|(holder, _)| keys::account(holder)));
    let nonces: Vec<u64> = members.into_iter().map(|(_, nonce)| nonce).collect();
    Audit::of(keys, move |values, commits| check(&nonces, values, commits))
}

fn check(nonces: &[u64], values: &[Option<Value>], commits: Commits) -> Result<(), AuditFailure> {
    let holders = 1 + nonces.len();
    let (reserves, rest) = values.split_at(1);
    let (first, rest) = rest.split_at(holders);
    let (second, records) = rest.split_at(holders);
    let reserves = word(reserves[0].as_ref());
    let reserve = [reserves & U256::from(u128::MAX >> 16), reserves >> 112];
    let funds = U256::from(FUNDS);
    for (holdings, reserve) in [first, second].into_iter().zip(reserve) {
        let all: U256 = holdings.iter().map(|value| word(value.as_ref())).sum();
        let expected = funds * U256::from(holders);
        if all != expected {
            let detail = format!("of a token there is {all}, not {expected}");
            return Err(AuditFailure::rule("tokens are neither made nor lost", detail));
        }
        let held = word(holdings[0].as_ref());
        if held != reserve {
            let detail = format!("a reserve is {reserve}, and the pool has {held}");
            return Err(AuditFailure::rule("reserves are what the pool has", detail));
        }
    }
    if reserve[0] * reserve[1] < funds * funds {
        let detail = format!("the reserves are {} and {}", reserve[0], reserve[1]);
        return Err(AuditFailure::rule("the product of reserves does not fall", detail));
    }
    if commits == Commits::All {
        for (record, expected) in records.iter().zip(nonces) {
            let found = chain::nonce(record.as_ref());
            if found != Some(*expected) {
                let detail = format!("an account's nonce is {found:?}, not {expected}");
                return Err(AuditFailure::rule("all swaps were made", detail));
            }
        }
    }
    Ok(())
}

/// The word in a slot.
fn word(value: Option<&Value>) -> U256 {
    value.and_then(|value| U256::try_from_be_slice(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
