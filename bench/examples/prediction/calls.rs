//! The workloads.

use std::error::Error;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, Signature, TxKind, U256};
use bytes::Bytes;
use parsec_bench::contracts;
use parsec_bench::draw::{self, Draws};
use parsec_bench::workload::{LuaPay, LuaPayOptions, PaymentOptions, Workload};
use parsec_protocol::{RuntimeId, Transaction, Value};
use parsec_runtimes::native::{self, Program};
use rayon::prelude::*;
use secp256k1::{Message, PublicKey, Secp256k1, SecretKey};

use crate::world::{CHAIN_ID, World};

const ACCOUNTS: u64 = 2_000;
const GAS: u64 = 3_000_000;
const FUNDS: u64 = 1 << 60;

/// A workload over a world that is set up for it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) world: World,
    pub(crate) load: Vec<Transaction>,
}

/// Someone who signs.
struct Account {
    secret: SecretKey,
    address: Address,
    nonce: u64,
}

/// A transaction that is not signed yet.
struct Unsigned {
    secret: SecretKey,
    nonce: u64,
    to: TxKind,
    value: U256,
    input: Bytes,
}

impl Account {
    fn new(number: u64) -> Result<Self, secp256k1::Error> {
        let secret = SecretKey::from_byte_array(draw::bytes32(1, "predicted account", number))?;
        let public =
            PublicKey::from_secret_key(&Secp256k1::new(), &secret).serialize_uncompressed();
        Ok(Self { secret, address: Address::from_raw_public_key(&public[1..]), nonce: 0 })
    }

    fn call(&mut self, to: Address, input: Bytes) -> Unsigned {
        self.send(TxKind::Call(to), U256::ZERO, input)
    }

    fn send(&mut self, to: TxKind, value: U256, input: Bytes) -> Unsigned {
        let nonce = self.nonce;
        self.nonce += 1;
        Unsigned { secret: self.secret, nonce, to, value, input }
    }
}

impl Unsigned {
    /// The signed transaction. It pays nothing for its gas, so that nobody needs Ether.
    fn sign(self) -> Transaction {
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: self.nonce,
            gas_limit: GAS,
            to: self.to,
            value: self.value,
            input: self.input.into(),
            ..TxEip1559::default()
        };
        let digest = Message::from_digest(transaction.signature_hash().0);
        let signature = Secp256k1::new().sign_ecdsa_recoverable(digest, &self.secret);
        let (parity, scalars) = signature.serialize_compact();
        let signature = Signature::from_bytes_and_parity(&scalars, i32::from(parity) & 1 == 1);
        let mut raw = Vec::new();
        transaction.into_signed(signature).eip2718_encode(&mut raw);
        Transaction::new(RuntimeId::EVM, raw)
    }
}

fn sign_all(unsigned: Vec<Unsigned>) -> Vec<Transaction> {
    unsigned.into_par_iter().map(Unsigned::sign).collect()
}

/// A world with two tokens that accounts hold, and a pool of them.
struct Ethereum {
    world: World,
    owner: Account,
    accounts: Vec<Account>,
    tokens: [Address; 2],
    pool: Address,
    draws: Draws,
}

impl Ethereum {
    fn new(purpose: &str) -> Result<Self, Box<dyn Error>> {
        let mut world = World::new();
        let mut owner = Account::new(0)?;
        let accounts = (1..=ACCOUNTS).map(Account::new).collect::<Result<Vec<_>, _>>()?;
        let tokens = [0, 1].map(|nonce| owner.address.create(nonce));
        let pool = owner.address.create(2);
        let create = |owner: &mut Account, input| owner.send(TxKind::Create, U256::ZERO, input);
        let mut setup = vec![
            create(&mut owner, contracts::deploy_mintable("First", "A")),
            create(&mut owner, contracts::deploy_mintable("Second", "B")),
            create(&mut owner, contracts::deploy_pool(tokens[0], tokens[1])),
        ];
        for token in tokens {
            let holders = accounts.iter().map(|account| account.address).chain([pool]);
            let mint = |holder| contracts::mint(holder, U256::from(FUNDS));
            setup.extend(holders.map(|holder| owner.call(token, mint(holder))));
        }
        setup.push(owner.call(pool, contracts::sync_pool()));
        world.set_up(&sign_all(setup))?;
        Ok(Self { world, owner, accounts, tokens, pool, draws: Draws::new(1, purpose) })
    }

    /// Two different accounts.
    fn pair(&mut self) -> Result<(usize, usize), Box<dyn Error>> {
        let from = self.draws.below(ACCOUNTS);
        let to = (from + 1 + self.draws.below(ACCOUNTS - 1)) % ACCOUNTS;
        Ok((usize::try_from(from)?, usize::try_from(to)?))
    }

    /// So many calls, each of an account, which has another one to do with.
    fn calls(
        &mut self,
        count: usize,
        call: impl Fn(&mut Account, Address, u64) -> Unsigned,
    ) -> Result<Vec<Transaction>, Box<dyn Error>> {
        let mut all = Vec::new();
        for number in 0..count {
            let (from, to) = self.pair()?;
            let to = self.accounts[to].address;
            all.push(call(&mut self.accounts[from], to, number as u64));
        }
        Ok(sign_all(all))
    }

    /// Everyone allows `spender` to spend.
    fn allow(&mut self, token: usize, spender: Address) -> Result<(), Box<dyn Error>> {
        let token = self.tokens[token];
        let approve = |account: &mut Account| {
            account.call(token, contracts::approve(spender, U256::from(FUNDS)))
        };
        let all = self.accounts.iter_mut().map(approve).collect();
        Ok(self.world.set_up(&sign_all(all))?)
    }
}

fn transfer(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("transfer")?;
    let token = chain.tokens[0];
    let load = chain.calls(count, |from, to, number| {
        from.call(token, contracts::transfer(to, U256::from(1 + number % 100)))
    })?;
    Ok(Case { name: "erc20 transfer", world: chain.world, load })
}

fn approve(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("approve")?;
    let token = chain.tokens[0];
    let load = chain.calls(count, |from, to, number| {
        from.call(token, contracts::approve(to, U256::from(1 + number % 100)))
    })?;
    Ok(Case { name: "erc20 approve", world: chain.world, load })
}

fn transfer_from(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("transferFrom")?;
    let token = chain.tokens[0];
    // Some spenders, who are allowed by everyone, send from anyone to anyone.
    let mut spenders = (5_000..5_010).map(Account::new).collect::<Result<Vec<_>, _>>()?;
    for spender in &spenders {
        chain.allow(0, spender.address)?;
    }
    let mut all = Vec::new();
    for number in 0..count {
        let (from, to) = chain.pair()?;
        let (from, to) = (chain.accounts[from].address, chain.accounts[to].address);
        let spender = &mut spenders[number % 10];
        all.push(spender.call(token, contracts::transfer_from(from, to, U256::ONE)));
    }
    Ok(Case { name: "erc20 transferFrom", world: chain.world, load: sign_all(all) })
}

fn mint(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("mint")?;
    let token = chain.tokens[0];
    let mut all = Vec::new();
    for _ in 0..count {
        let (_, to) = chain.pair()?;
        let to = chain.accounts[to].address;
        all.push(chain.owner.call(token, contracts::mint(to, U256::ONE)));
    }
    Ok(Case { name: "erc20 mint, one owner", world: chain.world, load: sign_all(all) })
}

fn ether(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("ether")?;
    for account in &chain.accounts {
        let record = parsec_runtimes::evm::keys::AccountRecord {
            balance: U256::from(FUNDS),
            nonce: account.nonce,
        };
        let key = parsec_runtimes::evm::keys::account(&account.address);
        chain.world.put(key, record.encode());
    }
    let load = chain.calls(count, |from, _, number| {
        let fresh = draw::bytes32(1, "fresh account", number);
        let to = TxKind::Call(Address::from_slice(&fresh[..20]));
        from.send(to, U256::from(1 + number % 100), Bytes::new())
    })?;
    Ok(Case { name: "ether to fresh accounts", world: chain.world, load })
}

fn swap(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut chain = Ethereum::new("swap")?;
    let pool = chain.pool;
    chain.allow(0, pool)?;
    chain.allow(1, pool)?;
    let load = chain.calls(count, |from, to, number| {
        from.call(pool, contracts::swap(U256::from(1_000 + number % 100), number % 2 == 0, to))
    })?;
    Ok(Case { name: "swap, either way", world: chain.world, load })
}

fn lua(count: usize, signed: bool) -> Result<Case, Box<dyn Error>> {
    let payments = PaymentOptions { accounts: u32::try_from(ACCOUNTS)?, ..Default::default() };
    let mut workload = LuaPay::new(LuaPayOptions { payments, signed, declared: false })?;
    let mut world = World::new();
    for stage in workload.setup() {
        let transactions: Vec<_> = stage.transactions.into_iter().map(|t| t.transaction).collect();
        world.set_up(&transactions)?;
    }
    let load = workload.build(count, &|_| {}).into_iter().map(|load| load.transaction).collect();
    let name = if signed { "lua pay, signed" } else { "lua transfer" };
    Ok(Case { name, world, load })
}

/// Programs that follow five pointers each, to keys that they write: ten keys.
fn chases(count: usize) -> Result<Case, Box<dyn Error>> {
    let mut world = World::new();
    let (pointer, target) =
        (|n: u64| native::key(format!("pointer {n}")), |n: u64| native::key(format!("target {n}")));
    for n in 0..ACCOUNTS {
        world.put(pointer(n)?, Value::copy_from_slice(target(n)?.encoded()));
    }
    let mut draws = Draws::new(1, "chases");
    let mut load = Vec::new();
    for number in 0..count {
        let mut program = Program::new();
        for _ in 0..5 {
            let start = pointer(draws.below(ACCOUNTS))?;
            program = program.chase(&start, 1, Some(Value::from_static(b"seen")));
        }
        load.push(program.into_transaction(number as u128));
    }
    Ok(Case { name: "native, 5 chases", world, load })
}

/// All workloads, of so many transactions each.
pub(crate) fn cases(count: usize) -> Result<Vec<Case>, Box<dyn Error>> {
    Ok(vec![
        transfer(count)?,
        approve(count)?,
        transfer_from(count)?,
        mint(count)?,
        ether(count)?,
        swap(count)?,
        lua(count, false)?,
        lua(count, true)?,
        chases(count)?,
    ])
}
