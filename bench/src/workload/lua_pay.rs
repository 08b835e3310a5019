//! Payments as calls of the Lua contract `pay`, signed in the manner of PArSEC or not at all.

use std::sync::LazyLock;

use bytes::Bytes;
use parsec_protocol::{Access, ErrorCode, Footprint, Key, Mode, Transaction};
use parsec_runtimes::lua::{self, LuaCall, LuaValue};
use rayon::prelude::*;
use secp256k1::{Keypair, SecretKey};
use sha2::{Digest, Sha256};

use super::audit::leading_number;
use super::payments::{BALANCE_START, Payment, PaymentOptions, Payments, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{Audit, BuildProgress, LoadTransaction, SIGNER, Stage, Workload, salt};
use crate::draw::{self, BadWorkload};

/// Accounts that one setup transaction opens.
const SETUP_ACCOUNTS: usize = 128;

/// The pay contract as it is, in one that can also open accounts.
static SOURCE: LazyLock<Bytes> = LazyLock::new(|| {
    let (pay, open) = (lua::PAY, include_str!("pay_open.lua"));
    Bytes::from(format!("local pay = (function()\n{pay}\nend)()\n{open}"))
});
static CONTRACT: LazyLock<[u8; 32]> = LazyLock::new(|| lua::contract_id(&SOURCE));

/// What a [`LuaPay`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LuaPayOptions {
    /// The payments.
    pub payments: PaymentOptions,
    /// Whether payers sign, as in PArSEC. Each account's payments have consecutive sequence
    /// numbers then: their order matters.
    pub signed: bool,
    /// Whether payments declare their footprints. Otherwise the cluster discovers them.
    pub declared: bool,
}

/// Calls of the contract `pay` between random accounts: of its function `transfer`, or of `pay` if
/// payers sign.
///
/// Setup deploys the contract and opens the accounts.
#[derive(Debug)]
pub struct LuaPay {
    options: LuaPayOptions,
    spread: Option<Spread>,
    accounts: Vec<Account>,
    payments: Payments,
}

/// Someone who pays.
#[derive(Debug)]
struct Account {
    keys: Keypair,
    /// The public key, by which the contract knows the account.
    name: [u8; 32],
    /// Where the contract keeps it.
    key: Key,
}

impl Account {
    fn derive(seed: u64, number: u64) -> Self {
        let bytes = draw::bytes32(seed, "lua account", number);
        let secret =
            SecretKey::from_byte_array(bytes).expect("all but one in 2^127 hashes are secret keys");
        let keys = Keypair::from_secret_key(&SIGNER, &secret);
        let name = keys.x_only_public_key().0.serialize();
        let key = lua::contract_key(&CONTRACT, &[b"account_", &name[..]].concat())
            .expect("75 bytes are no long key");
        Self { keys, name, key }
    }
}

impl LuaPayOptions {
    fn call(&self, payer: &Account, payee: &Account, payment: Payment) -> LuaCall {
        let Payment { nonce, amount, .. } = payment;
        let number = |number: u64| {
            i64::try_from(number).expect("no account makes 2^63 payments, or one so large")
        };
        let mut arguments: Vec<LuaValue> =
            vec![payer.name[..].into(), payee.name[..].into(), number(amount).into()];
        if !self.signed {
            return LuaCall::invoke(*CONTRACT, "transfer", arguments);
        }
        let message = [&payee.name[..], &amount.to_le_bytes(), &nonce.to_le_bytes()].concat();
        let digest: [u8; 32] = Sha256::digest(&message).into();
        let signature = SIGNER.sign_schnorr_no_aux_rand(&digest, &payer.keys).to_byte_array();
        arguments.extend([number(nonce).into(), signature[..].into()]);
        LuaCall::invoke(*CONTRACT, "pay", arguments)
    }

    fn footprint(&self, payer: &Account, payee: &Account) -> Option<Footprint> {
        let accesses = vec![
            Access { key: lua::source_key(&CONTRACT), mode: Mode::Read },
            Access { key: payer.key.clone(), mode: Mode::Write },
            Access { key: payee.key.clone(), mode: Mode::Add },
        ];
        self.declared.then(|| Footprint::new(accesses).expect("three keys are no long footprint"))
    }
}

impl LuaPay {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: LuaPayOptions) -> Result<Self, BadWorkload> {
        let payments = Payments::new(&options.payments)?;
        let derive = |number: u32| Account::derive(options.payments.seed, number.into());
        let accounts = (0..options.payments.accounts).into_par_iter().map(derive).collect();
        Ok(Self { options, spread: None, accounts, payments })
    }

    /// The workload with these options and accounts whose keys lie where `spread` wants them. A
    /// payment touches two of them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 2 participants.
    pub fn spread(options: LuaPayOptions, spread: Spread) -> Result<Self, BadWorkload> {
        let spreader = Spreader::new(&options.payments, spread, Pattern::Group(2))?;
        let candidate = |number| {
            let account = Account::derive(options.payments.seed, number);
            let key = account.key.clone();
            (account, [key])
        };
        let accounts = spreader.fill(candidate);
        let payments = Payments::spread(spreader);
        Ok(Self { options, spread: Some(spread), accounts, payments })
    }

    /// The transaction that opens some of the accounts, with its number among those.
    fn opening(&self, accounts: &[Account], number: u64) -> LoadTransaction {
        let names: Vec<u8> = accounts.iter().flat_map(|account| account.name).collect();
        let balance = i64::try_from(BALANCE_START).expect("10^15 is below 2^63");
        let call = LuaCall::invoke(*CONTRACT, "open", [names[..].into(), balance.into()]);
        let transaction =
            call.into_transaction(salt(self.options.payments.seed, "lua setup", number));
        LoadTransaction { sender: None, transaction }
    }
}

impl Workload for LuaPay {
    fn name(&self) -> String {
        let LuaPayOptions { payments, signed, declared } = self.options;
        let signed = if signed { "signed" } else { "unsigned" };
        let footprint = if declared { "declared" } else { "discovered" };
        match self.spread {
            None => format!("lua pay ({signed}, footprint {footprint}, {payments})"),
            Some(spread) => {
                format!("lua pay ({signed}, footprint {footprint}, {spread}, {payments})")
            }
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let deployment = LoadTransaction {
            sender: None,
            transaction: LuaCall::deploy(SOURCE.clone()).into_transaction(0),
        };
        let parts = self.accounts.chunks(SETUP_ACCOUNTS).zip(0..);
        vec![
            Stage {
                purpose: "deploy the contract",
                transactions: vec![deployment],
                tolerated: Some(ErrorCode::AlreadyExists),
            },
            Stage {
                purpose: "open the accounts",
                transactions: parts.map(|(part, number)| self.opening(part, number)).collect(),
                tolerated: None,
            },
        ]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let (accounts, options) = (&self.accounts, &self.options);
        self.payments.build(count, progress, |[payment]| {
            let (payer, payee) = (&accounts[index(payment.from)], &accounts[index(payment.to)]);
            let salt = salt(options.payments.seed, "lua load", payment.number);
            let transaction = Transaction {
                footprint: options.footprint(payer, payee),
                ..options.call(payer, payee, payment).into_transaction(salt)
            };
            LoadTransaction { sender: options.signed.then_some(payment.from), transaction }
        })
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.payments.multi_partition())
    }

    fn skip(&mut self, count: usize) {
        self.payments.skip::<1>(count);
    }

    fn audit(&self) -> Audit {
        let keys = self.accounts.iter().map(|account| account.key.clone());
        let balances = self.payments.balances().iter().copied();
        Audit::new(keys.zip(balances).collect(), leading_number)
    }
}
