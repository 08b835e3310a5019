//! SmallBank: checking and savings accounts.

use parsec_protocol::{ErrorCode, Key, Value};
use parsec_runtimes::procedures::Invocation;
use parsec_runtimes::procedures::smallbank::{self, Account, Call};

use super::payments::{PaymentOptions, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{
    Audit, AuditFailure, BuildProgress, Commits, LoadTransaction, Reverts, Stage, Workload, build,
    procedure, put_rows, salt,
};
use crate::draw::{self, BadWorkload, Draws, Pairs};

/// What each account has at first at least, cents; at most some three millions more.
const START: u64 = 1_000_000;
/// The largest amount of one call.
const AMOUNT_MAX: u64 = 10_000;

/// What a [`SmallBank`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SmallBankOptions {
    /// Customers, how they are chosen, and the seed.
    pub customers: PaymentOptions,
    /// How many of 100 calls are of `Balance`, which only reads; without it, each of the six
    /// procedures is called as often as the others.
    pub read: Option<u8>,
    /// Whether calls declare their footprints. Otherwise admission takes them from the arguments.
    pub declared: bool,
}

/// Calls of the six procedures for random customers.
///
/// Amalgamations empty accounts, so that payments and withdrawals after them lack funds and
/// revert: which ones, depends on the order. The audit holds whatever the order: money is neither
/// made nor lost, and if everything committed, each account was written as often as it should be.
///
/// With a [`Spread`], a call that touches several partitions is one of the two that have to do
/// with two customers.
#[derive(Debug)]
pub struct SmallBank {
    options: SmallBankOptions,
    spread: Option<Spread>,
    /// The number of each customer.
    customers: Vec<u64>,
    choice: Choice,
    draws: Draws,
    made: u64,
    /// How often each customer's savings and checking accounts are written.
    writes: Vec<[u64; 2]>,
}

#[derive(Debug)]
enum Choice {
    Free(Pairs),
    Spread(Spreader),
}

impl SmallBank {
    /// The workload with these options, with customers anywhere or where `spread` wants them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range: there can't be more than 2 participants.
    pub fn new(options: SmallBankOptions, spread: Option<Spread>) -> Result<Self, BadWorkload> {
        let PaymentOptions { seed, accounts, skew, conflict } = options.customers;
        let (customers, choice) = match spread {
            None => {
                let pairs = Pairs::new(seed, accounts, skew)?.with_conflict(conflict)?;
                ((0..u64::from(accounts)).collect(), Choice::Free(pairs))
            }
            Some(spread) => {
                let spreader = Spreader::new(&options.customers, spread, Pattern::Group(2))?;
                let candidate = |number| (number, [smallbank::checking(seed, number)]);
                (spreader.fill(candidate), Choice::Spread(spreader))
            }
        };
        let writes = vec![[0; 2]; customers.len()];
        let draws = Draws::new(seed, "smallbank");
        Ok(Self { options, spread, customers, choice, draws, made: 0, writes })
    }

    /// The next call, and its number.
    fn next_call(&mut self) -> (u64, Call) {
        let (pair, across) = match &mut self.choice {
            Choice::Free(pairs) => (pairs.next_group(2), false),
            Choice::Spread(spreader) => {
                let before = spreader.multi_partition();
                (spreader.next_group(), spreader.multi_partition() > before)
            }
        };
        let (one, other) = (index(pair[0]), index(pair[1]));
        let amount = 1 + self.draws.below(AMOUNT_MAX);
        let amount = u32::try_from(amount).expect("10,000 at most");
        let [customer, to] = [one, other].map(|index| self.customers[index]);
        let kind = self.next_kind(across);
        let call = match kind {
            0 => Call::Balance { customer },
            1 => Call::DepositChecking { customer, amount },
            2 => {
                let amount = i32::try_from(amount).expect("10,000 at most");
                let sign = if self.draws.below(2) == 0 { -1 } else { 1 };
                Call::TransactSavings { customer, amount: sign * amount }
            }
            3 => Call::Amalgamate { from: customer, to },
            4 => Call::WriteCheck { customer, amount },
            _ => Call::SendPayment { from: customer, to, amount },
        };
        let written = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 1], [0, 1]][kind];
        for (count, more) in self.writes[one].iter_mut().zip(written) {
            *count += more;
        }
        self.writes[other][1] += u64::from(matches!(kind, 3 | 5));
        let number = self.made;
        self.made += 1;
        (number, call)
    }

    /// Which of the six procedures is next.
    fn next_kind(&mut self, across: bool) -> usize {
        let kind = match (across, self.options.read) {
            (true, _) => 3 + 2 * self.draws.below(2),
            (false, None) => self.draws.below(6),
            (false, Some(read)) if self.draws.below(100) < read.into() => 0,
            (false, Some(_)) => 1 + self.draws.below(5),
        };
        usize::try_from(kind).expect("below 6")
    }

    fn bank(&self) -> u64 {
        self.options.customers.seed
    }
}

/// Savings and checking accounts in turn, as they are at first.
fn accounts(bank: u64, customers: &[u64]) -> impl Iterator<Item = (Key, Account)> {
    customers.iter().flat_map(move |customer| {
        let noise = draw::bytes32(bank, "smallbank account", *customer);
        let start = |part: usize| {
            let drawn = u64::from(u16::from_be_bytes([noise[part], noise[part + 1]]));
            let balance = i64::try_from(START + 50 * drawn).expect("some millions");
            Account { balance, ..Account::default() }
        };
        let (savings, checking) =
            (smallbank::savings(bank, *customer), smallbank::checking(bank, *customer));
        [(savings, start(0)), (checking, start(2))]
    })
}

impl Workload for SmallBank {
    fn name(&self) -> String {
        let SmallBankOptions { customers, .. } = self.options;
        match self.spread {
            None => format!("smallbank ({customers})"),
            Some(spread) => format!("smallbank ({spread}, {customers})"),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        let bank = self.bank();
        let rows = accounts(bank, &self.customers).map(|(key, account)| (key, account.encode()));
        vec![put_rows(bank, "open the accounts", rows)]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let (bank, declared) = (self.bank(), self.options.declared);
        build(
            count,
            progress,
            || self.next_call(),
            |(number, call)| {
                let salt = salt(bank, "smallbank load", number);
                procedure(Invocation::SmallBank { bank, call }, salt, declared)
            },
        )
    }

    fn reverts(&self) -> Reverts {
        Reverts::Perhaps(ErrorCode::InsufficientFunds)
    }

    fn multi_partition(&self) -> Option<u64> {
        match &self.choice {
            Choice::Free(_) => None,
            Choice::Spread(spreader) => Some(spreader.multi_partition()),
        }
    }

    fn audit(&self) -> Audit {
        let bank = self.bank();
        let (keys, start): (Vec<_>, Vec<_>) = accounts(bank, &self.customers).unzip();
        let start = start.iter().map(|account| i128::from(account.balance)).sum();
        let writes: Vec<u64> = self.writes.iter().flatten().copied().collect();
        let named = keys.clone();
        Audit::of(keys, move |values, commits| check(&named, start, &writes, values, commits))
    }
}

fn check(
    keys: &[Key],
    start: i128,
    writes: &[u64],
    values: &[Option<Value>],
    commits: Commits,
) -> Result<(), AuditFailure> {
    let (mut balances, mut inflows) = (0, 0);
    for ((key, value), expected) in keys.iter().zip(values).zip(writes) {
        let account = value.as_deref().and_then(Account::decode);
        let account = account.ok_or_else(|| AuditFailure::NotABalance { key: key.clone() })?;
        balances += i128::from(account.balance);
        inflows += i128::from(account.inflow);
        let found = account.writes;
        if found > *expected || (commits == Commits::All && found != *expected) {
            let detail = format!("{key} was written {found} times, not {expected}");
            return Err(AuditFailure::rule("writes are neither lost nor made twice", detail));
        }
    }
    match balances == start + inflows {
        true => Ok(()),
        false => Err(AuditFailure::rule(
            "money is neither made nor lost",
            format!("all balances are {balances}, not {start} and {inflows} from outside"),
        )),
    }
}

#[cfg(test)]
mod tests;
