//! Mints of one collection: the hottest thing that chains see.

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use parsec_protocol::{Key, Value};
use parsec_runtimes::evm::keys;
use rayon::prelude::*;

use super::audit::big_endian;
use super::chain::{Unsigned, ordered};
use super::payments::{PaymentOptions, index};
use super::{Audit, AuditFailure, BuildProgress, Commits, LoadTransaction, Stage, Workload, build};
use crate::account::Account;
use crate::contracts;
use crate::draw::{BadWorkload, Pairs};

/// Gas of a mint; the first of an account takes some 95,000.
const MINT_GAS: u64 = 150_000;
/// Most numbers whose owners are looked at.
const OWNERS_MAX: u64 = 200_000;

/// What an [`Nft`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NftOptions {
    /// Accounts that mint, how they are chosen, and the seed.
    pub accounts: PaymentOptions,
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
}

/// Signed mints, each for its sender. The contract numbers what it mints, so all write one
/// counter, and the slot in which a mint puts its owner depends on all mints before it: its
/// footprint can't be known before.
#[derive(Debug)]
pub struct Nft {
    options: NftOptions,
    deployer: Account,
    collection: Address,
    accounts: Vec<Account>,
    chooser: Pairs,
    /// How often each account minted.
    made: Vec<u64>,
}

impl Nft {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: NftOptions) -> Result<Self, BadWorkload> {
        let PaymentOptions { seed, accounts, skew, .. } = options.accounts;
        let chooser = Pairs::new(seed, accounts, skew)?;
        let deployer = Account::derive(seed, "nft deployer", 0);
        let derive = |number: u32| Account::derive(seed, "nft account", number.into());
        Ok(Self {
            options,
            deployer,
            collection: deployer.address().create(0),
            accounts: (0..accounts).into_par_iter().map(derive).collect(),
            chooser,
            made: vec![0; index(accounts)],
        })
    }

    fn slot(&self, slot: U256) -> Key {
        keys::storage(&self.collection, 0, slot)
    }
}

/// Who mints next, and its nonce.
fn next_mint(chooser: &mut Pairs, made: &mut [u64]) -> (u32, u64) {
    let account = chooser.next_group(1)[0];
    let made = &mut made[index(account)];
    *made += 1;
    (account, *made - 1)
}

impl Workload for Nft {
    fn name(&self) -> String {
        format!("nft mint ({})", self.options.accounts)
    }

    fn setup(&self) -> Vec<Stage> {
        let input = contracts::deploy_nft("Parsec Collection", "PC");
        let deployment = Unsigned::create(0, input).sign(self.options.chain_id, &self.deployer);
        let transactions = vec![ordered(0, deployment)];
        vec![Stage { purpose: "deploy the collection", transactions, tolerated: None }]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let Self { options, collection, accounts, chooser, made, .. } = self;
        let next = || next_mint(chooser, made);
        build(count, progress, next, |(account, nonce)| {
            let call = Unsigned::call(nonce, MINT_GAS, *collection, contracts::mint_next());
            ordered(account, call.sign(options.chain_id, &accounts[index(account)]))
        })
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            next_mint(&mut self.chooser, &mut self.made);
        }
    }

    /// The counter is the number of mints, each number up to it has an owner, and each account
    /// has as many as it is said to have.
    fn audit(&self) -> Audit {
        let owned = |owner: &Account| {
            self.slot(U256::from_be_bytes(contracts::owned_slot(owner.address()).0))
        };
        let owner = |number: u64| {
            self.slot(U256::from_be_bytes(contracts::owner_slot(U256::from(number)).0))
        };
        let all: u64 = self.made.iter().sum();
        // One more than there can be.
        let looked_at = all.min(OWNERS_MAX) + 1;
        let mut keys = vec![self.slot(contracts::MINTED_SLOT)];
        keys.extend(self.accounts.iter().map(owned));
        keys.extend((1..=looked_at).map(owner));
        let accounts = self.accounts.iter().map(Account::address).collect();
        let check = Check { accounts, made: self.made.clone(), all };
        Audit::of(keys, move |values, commits| check.run(values, commits)).needing_commits()
    }
}

struct Check {
    accounts: Vec<Address>,
    made: Vec<u64>,
    all: u64,
}

impl Check {
    fn run(&self, values: &[Option<Value>], commits: Commits) -> Result<(), AuditFailure> {
        let numbers = |values: &[Option<Value>]| {
            let number = |value: &Option<Value>| {
                let value = value.as_deref().unwrap_or_default();
                big_endian(value).and_then(|number| u64::try_from(number).ok())
            };
            let broken = || AuditFailure::rule("counts are numbers", "one is too large");
            values.iter().map(number).collect::<Option<Vec<_>>>().ok_or_else(broken)
        };
        let (counts, owners) = values.split_at(1 + self.accounts.len());
        let counts = numbers(counts)?;
        let (minted, owned) = (counts[0], &counts[1..]);
        if !commits.allow(minted, self.all) {
            let detail = format!("it is {minted}, of {} and {commits:?}", self.all);
            return Err(AuditFailure::rule("the counter is the number of mints", detail));
        }
        for ((found, made), owner) in owned.iter().zip(&self.made).zip(&self.accounts) {
            if found > made || (commits == Commits::All && found != made) {
                let detail = format!("{owner} has {found}, and minted {made}");
                return Err(AuditFailure::rule("everyone has what it minted", detail));
            }
        }
        self.owners(minted, owned, owners)
    }

    fn owners(
        &self,
        minted: u64,
        owned: &[u64],
        owners: &[Option<Value>],
    ) -> Result<(), AuditFailure> {
        let mut counts: BTreeMap<Address, u64> =
            self.accounts.iter().map(|account| (*account, 0)).collect();
        for (owner, number) in owners.iter().zip(1..) {
            let broken = |what| AuditFailure::rule("what is minted has an owner", what);
            match owner {
                None if number <= minted => return Err(broken(format!("{number} has none"))),
                None => {}
                Some(_) if number > minted => {
                    return Err(broken(format!("{number} has one, and is not minted")));
                }
                Some(owner) => {
                    let owner = U256::try_from_be_slice(owner).unwrap_or_default();
                    let owner = Address::from_word(owner.into());
                    let Some(count) = counts.get_mut(&owner) else {
                        return Err(broken(format!("{owner} has {number}, and never mints")));
                    };
                    *count += 1;
                }
            }
        }
        let looked_at_all = minted < u64::try_from(owners.len()).unwrap_or(u64::MAX);
        for (account, said) in self.accounts.iter().zip(owned) {
            let found = counts.get(account).copied().unwrap_or(0);
            if found > *said || (looked_at_all && found != *said) {
                let detail = format!("{account} owns {found}, and is said to own {said}");
                return Err(AuditFailure::rule("everyone has as many as it owns", detail));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
