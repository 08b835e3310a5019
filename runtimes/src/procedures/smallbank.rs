//! SmallBank: customers with a savings and a checking account each, and the six procedures of
//! Alomari et al. (ICDE 2008).
//!
//! Both accounts of a customer share a placement. An account is a row of three numbers: the
//! balance, the *inflow* (what came from outside of the bank so far, less what left it), and how
//! often it was written. The last two are no part of SmallBank: they let anyone check that no
//! money was made or lost, and no write, whatever ran in which order.

use parsec_protocol::{Access, ErrorCode, Key, Mode, Namespace, Value};
use rkyv::{Archive, Deserialize, Serialize};

use super::fields::Fields;
use super::{Effects, Step, access, yes};
use crate::State;

const ACCOUNTS: Namespace = Namespace::partitioned(0x1a);
/// The number of the bank and the customer's.
const AFFINITY_BYTES: u8 = 16;

/// One of the procedures. Amounts are cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Call {
    /// Returns what a customer has in both accounts (8 bytes).
    Balance { customer: u64 },
    /// Pays into the checking account.
    DepositChecking { customer: u64, amount: u32 },
    /// Pays into the savings account, or takes from it; says no
    /// ([`ErrorCode::InsufficientFunds`]) if it lacks funds.
    TransactSavings { customer: u64, amount: i32 },
    /// Moves all that one customer has to the checking account of another.
    Amalgamate { from: u64, to: u64 },
    /// Takes from the checking account, and one more as a penalty if both accounts together hold
    /// less.
    WriteCheck { customer: u64, amount: u32 },
    /// Pays from one checking account to another; says no ([`ErrorCode::InsufficientFunds`]) if
    /// it lacks funds.
    SendPayment { from: u64, to: u64, amount: u32 },
}

/// One account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// What is in it, cents. Checks may overdraw it.
    pub balance: i64,
    /// What came from outside of the bank, less what left it.
    pub inflow: i64,
    /// How often it was written.
    pub writes: u64,
}

impl Account {
    /// The row.
    #[must_use]
    pub fn encode(self) -> Value {
        let Self { balance, inflow, writes } = self;
        [balance.to_be_bytes(), inflow.to_be_bytes(), writes.to_be_bytes()].concat().into()
    }

    /// The account of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let (balance, inflow, writes) = (fields.i64()?, fields.i64()?, fields.u64()?);
        fields.end()?;
        Some(Self { balance, inflow, writes })
    }

    /// With another balance by so much, of which so much came from outside.
    fn plus(self, amount: i64, inflow: i64) -> Result<Self, ErrorCode> {
        let sum = |a: i64, b: i64| a.checked_add(b).ok_or(ErrorCode::Overflow);
        Ok(Self {
            balance: sum(self.balance, amount)?,
            inflow: sum(self.inflow, inflow)?,
            writes: self.writes.wrapping_add(1),
        })
    }
}

/// The key of a customer's savings account.
#[must_use]
pub fn savings(bank: u64, customer: u64) -> Key {
    key(bank, customer, 1)
}

/// The key of a customer's checking account.
#[must_use]
pub fn checking(bank: u64, customer: u64) -> Key {
    key(bank, customer, 2)
}

fn key(bank: u64, customer: u64, account: u8) -> Key {
    let parts = [&bank.to_be_bytes()[..], &customer.to_be_bytes(), &[account]];
    Key::with_affinity(ACCOUNTS, AFFINITY_BYTES, &parts).expect("20 bytes are no long key")
}

impl Call {
    pub(super) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Amalgamate { from, to } | Self::SendPayment { from, to, .. } if from == to => {
                Some("a customer pays itself")
            }
            _ => None,
        }
    }

    pub(super) fn accesses(&self, bank: u64) -> Vec<Access> {
        let savings = |customer, mode| access(savings(bank, customer), mode);
        let checking = |customer, mode| access(checking(bank, customer), mode);
        match *self {
            Self::Balance { customer } => {
                vec![savings(customer, Mode::Read), checking(customer, Mode::Read)]
            }
            Self::DepositChecking { customer, .. } => vec![checking(customer, Mode::Write)],
            Self::TransactSavings { customer, .. } => vec![savings(customer, Mode::Write)],
            Self::Amalgamate { from, to } => vec![
                savings(from, Mode::Write),
                checking(from, Mode::Write),
                checking(to, Mode::Write),
            ],
            Self::WriteCheck { customer, .. } => {
                vec![savings(customer, Mode::Read), checking(customer, Mode::Write)]
            }
            Self::SendPayment { from, to, .. } => {
                vec![checking(from, Mode::Write), checking(to, Mode::Write)]
            }
        }
    }

    pub(super) fn run(&self, bank: u64, state: &mut dyn State) -> Step {
        let mut book = Book { state, bank };
        match *self {
            Self::Balance { customer } => {
                let saved = yes!(book.savings(customer)?);
                let checked = yes!(book.checking(customer)?);
                let Some(sum) = saved.balance.checked_add(checked.balance) else {
                    return Ok(Err(ErrorCode::Overflow));
                };
                Ok(Ok(Effects { output: sum.to_be_bytes().to_vec(), ..Effects::default() }))
            }
            Self::DepositChecking { customer, amount } => {
                let account = yes!(book.checking(customer)?);
                let account = yes!(account.plus(amount.into(), amount.into()));
                Ok(Ok(effects([(checking(bank, customer), account)])))
            }
            Self::TransactSavings { customer, amount } => {
                let account = yes!(book.savings(customer)?);
                let account = yes!(account.plus(amount.into(), amount.into()));
                if account.balance < 0 {
                    return Ok(Err(ErrorCode::InsufficientFunds));
                }
                Ok(Ok(effects([(savings(bank, customer), account)])))
            }
            Self::Amalgamate { from, to } => book.amalgamate(from, to),
            Self::WriteCheck { customer, amount } => book.write_check(customer, amount),
            Self::SendPayment { from, to, amount } => book.send_payment(from, to, amount),
        }
    }
}

/// The accounts of a bank.
struct Book<'a> {
    state: &'a mut dyn State,
    bank: u64,
}

impl Book<'_> {
    fn savings(&mut self, customer: u64) -> Step<Account> {
        self.account(&savings(self.bank, customer))
    }

    fn checking(&mut self, customer: u64) -> Step<Account> {
        self.account(&checking(self.bank, customer))
    }

    fn account(&mut self, key: &Key) -> Step<Account> {
        let row = self.state.get(key)?;
        Ok(row.and_then(|row| Account::decode(&row)).ok_or(ErrorCode::Refused))
    }

    fn amalgamate(&mut self, from: u64, to: u64) -> Step {
        let saved = yes!(self.savings(from)?);
        let checked = yes!(self.checking(from)?);
        let payee = yes!(self.checking(to)?);
        let all = yes!(saved.balance.checked_add(checked.balance).ok_or(ErrorCode::Overflow));
        let emptied = |account: Account| {
            let all = account.balance.checked_neg().ok_or(ErrorCode::Overflow)?;
            account.plus(all, 0)
        };
        Ok(Ok(effects([
            (savings(self.bank, from), yes!(emptied(saved))),
            (checking(self.bank, from), yes!(emptied(checked))),
            (checking(self.bank, to), yes!(payee.plus(all, 0))),
        ])))
    }

    fn write_check(&mut self, customer: u64, amount: u32) -> Step {
        let saved = yes!(self.savings(customer)?);
        let checked = yes!(self.checking(customer)?);
        let funds = yes!(saved.balance.checked_add(checked.balance).ok_or(ErrorCode::Overflow));
        let amount = i64::from(amount);
        let taken = if funds < amount { amount + 1 } else { amount };
        let checked = yes!(checked.plus(-taken, -taken));
        Ok(Ok(effects([(checking(self.bank, customer), checked)])))
    }

    fn send_payment(&mut self, from: u64, to: u64, amount: u32) -> Step {
        let payer = yes!(self.checking(from)?);
        let payee = yes!(self.checking(to)?);
        let amount = i64::from(amount);
        if payer.balance < amount {
            return Ok(Err(ErrorCode::InsufficientFunds));
        }
        Ok(Ok(effects([
            (checking(self.bank, from), yes!(payer.plus(-amount, 0))),
            (checking(self.bank, to), yes!(payee.plus(amount, 0))),
        ])))
    }
}

fn effects<const N: usize>(accounts: [(Key, Account); N]) -> Effects {
    let writes = accounts.map(|(key, account)| (key, account.encode()));
    Effects { writes: writes.into(), ..Effects::default() }
}
