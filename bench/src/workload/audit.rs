//! What must be in the state after a workload, and whether it is.

use std::sync::Arc;

use parsec_client::Client;
use parsec_protocol::message::ReadAt;
use parsec_protocol::{EpochNumber, Key, Value};

/// What is known of how many transactions of a load took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// All that were built, but for those that are [sure to revert](super::Reverts::Exactly).
    All,
    /// At least and at most so many: those whose receipts say so, and beside them those of which
    /// nothing is known.
    Between {
        /// The receipts that say so.
        least: u64,
        /// These, and the ones of which nothing is known.
        most: u64,
    },
}

impl Commits {
    /// When nothing is known.
    pub const ANY: Self = Self::Between { least: 0, most: u64::MAX };

    /// Whether there may be `found` effects, of `all` that were to be expected.
    #[must_use]
    pub fn allow(self, found: u64, all: u64) -> bool {
        match self {
            Self::All => found == all,
            Self::Between { least, most } => (least..=most.min(all)).contains(&found),
        }
    }
}

/// Judges the values of an audit's keys.
type Check = dyn Fn(&[Option<Value>], Commits) -> Result<(), AuditFailure> + Send + Sync;

/// What must be in the state after a workload.
#[derive(Clone)]
pub struct Audit {
    keys: Vec<Key>,
    check: Arc<Check>,
    needs_commits: bool,
}

/// What an [`Audit`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum AuditFailure {
    #[error("{found} values were read for {expected} keys")]
    Length { expected: usize, found: usize },
    #[error("the value of {key} is no balance")]
    NotABalance { key: Key },
    #[error("the balance of {key} is {found}, not {expected}: a payment was lost or made twice")]
    Balance { key: Key, expected: u128, found: u128 },
    #[error("the state could not be read: {0}")]
    Unread(#[from] parsec_client::Error),
    #[error("all balances together are {found}, not {expected}: money was made or lost")]
    Total { expected: u128, found: u128 },
    #[error("{rule}: {detail}")]
    Rule { rule: &'static str, detail: String },
}

impl AuditFailure {
    /// That a rule is broken, and how.
    #[must_use]
    pub fn rule(rule: &'static str, detail: impl Into<String>) -> Self {
        Self::Rule { rule, detail: detail.into() }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { keys, needs_commits, check: _ } = self;
        f.debug_struct("Audit")
            .field("keys", &keys.len())
            .field("needs_commits", needs_commits)
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// An audit of accounts whose balances `balance` takes out of their values: each is what it
    /// must be if everything committed; whatever did, all of them together are.
    #[must_use]
    pub fn new(expected: Vec<(Key, u128)>, balance: fn(&[u8]) -> Option<u128>) -> Self {
        let (keys, expected): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
        let named = keys.clone();
        Self::of(keys, move |values, commits| {
            check_balances(&named, &expected, balance, values, commits)
        })
    }

    /// An audit of these keys by any rule, which gets their values in the same order.
    #[must_use]
    pub fn of(
        keys: Vec<Key>,
        check: impl Fn(&[Option<Value>], Commits) -> Result<(), AuditFailure> + Send + Sync + 'static,
    ) -> Self {
        Self { keys, check: Arc::new(check), needs_commits: false }
    }

    /// This audit, which finds more if the number of commits is told.
    #[must_use]
    pub fn needing_commits(self) -> Self {
        Self { needs_commits: true, ..self }
    }

    /// All of these audits.
    #[must_use]
    pub fn join(parts: Vec<Self>) -> Self {
        let keys = parts.iter().flat_map(|part| part.keys.iter().cloned()).collect();
        let needs_commits = parts.iter().any(|part| part.needs_commits);
        let audit = Self::of(keys, move |values, commits| {
            let mut rest = values;
            parts.iter().try_for_each(|part| {
                let (values, others) = rest.split_at(part.keys.len());
                rest = others;
                (part.check)(values, commits)
            })
        });
        Self { needs_commits, ..audit }
    }

    /// Whether [`verify`](Self::verify) finds more if it is told how many transactions took
    /// effect than if it is told [`Commits::ANY`].
    #[must_use]
    pub fn needs_commits(&self) -> bool {
        self.needs_commits
    }

    /// Reads the state from a cluster and checks what can be said if everything built so far has
    /// committed, or else if anything may have. Returns the epoch after which it was read.
    ///
    /// # Errors
    /// [`AuditFailure::Unread`] if the cluster did not answer, else what is wrong.
    pub async fn run(
        &self,
        client: &Client,
        all_committed: bool,
    ) -> Result<EpochNumber, AuditFailure> {
        self.verify(client, if all_committed { Commits::All } else { Commits::ANY }).await
    }

    /// Reads the state from a cluster, as it was after one epoch, and checks it. Returns the epoch.
    ///
    /// # Errors
    /// [`AuditFailure::Unread`] if the cluster did not answer, else what is wrong.
    pub async fn verify(
        &self,
        client: &Client,
        commits: Commits,
    ) -> Result<EpochNumber, AuditFailure> {
        let (epoch, values) = client.read(&self.keys, ReadAt::Latest).await?;
        self.check(&values, commits)?;
        Ok(epoch)
    }

    /// The keys to read, all at one epoch.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.keys.iter()
    }

    /// Checks the values of the keys.
    ///
    /// # Errors
    /// What is wrong; [`AuditFailure::Length`] if `values` are not those of the keys.
    pub fn check(&self, values: &[Option<Value>], commits: Commits) -> Result<(), AuditFailure> {
        let (expected, found) = (self.keys.len(), values.len());
        if expected != found {
            return Err(AuditFailure::Length { expected, found });
        }
        (self.check)(values, commits)
    }
}

/// Checks that all balances are what they must be, or at least all of them together.
fn check_balances(
    keys: &[Key],
    expected: &[u128],
    balance: fn(&[u8]) -> Option<u128>,
    values: &[Option<Value>],
    commits: Commits,
) -> Result<(), AuditFailure> {
    let balance = |(key, value): (&Key, &Option<Value>)| {
        let value = value.as_ref().map_or(&[][..], |value| &value[..]);
        balance(value).ok_or_else(|| AuditFailure::NotABalance { key: key.clone() })
    };
    let found: Vec<u128> = keys.iter().zip(values).map(balance).collect::<Result<_, _>>()?;
    if commits == Commits::All {
        let mut balances = keys.iter().zip(expected).zip(&found);
        if let Some(((key, expected), found)) = balances.find(|((_, one), other)| one != other) {
            let (key, expected, found) = (key.clone(), *expected, *found);
            return Err(AuditFailure::Balance { key, expected, found });
        }
    }
    let (expected, found) = (expected.iter().sum(), found.iter().fold(0, saturating_sum));
    if found == expected { Ok(()) } else { Err(AuditFailure::Total { expected, found }) }
}

fn saturating_sum(sum: u128, balance: &u128) -> u128 {
    sum.saturating_add(*balance)
}

/// The number that `bytes` are, big-endian, if it fits.
pub(super) fn big_endian(bytes: &[u8]) -> Option<u128> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let shift = |number: u128, byte: &u8| number << 8 | u128::from(*byte);
    (digits.len() <= 16).then(|| digits.iter().fold(0, shift))
}

/// The number in the first 32 bytes of a value, to which additions add; zero if there is none.
pub(super) fn leading_number(bytes: &[u8]) -> Option<u128> {
    match bytes.get(..32) {
        Some(number) => big_endian(number),
        None => bytes.is_empty().then_some(0),
    }
}
