//! What must be in the state after a workload, and whether it is.

use parsec_client::Client;
use parsec_protocol::message::ReadAt;
use parsec_protocol::{EpochNumber, Key, Value};

/// The numbers that must be in the state after a workload.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Each account's key, and its balance if everything committed.
    expected: Vec<(Key, u128)>,
    /// Takes the balance out of a value.
    balance: fn(&[u8]) -> Option<u128>,
}

/// What an [`Audit`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum AuditFailure {
    #[error("{found} values were read for {expected} accounts")]
    Length { expected: usize, found: usize },
    #[error("the value of {key} is no balance")]
    NotABalance { key: Key },
    #[error("the balance of {key} is {found}, not {expected}: a payment was lost or made twice")]
    Balance { key: Key, expected: u128, found: u128 },
    #[error("the balances could not be read: {0}")]
    Unread(#[from] parsec_client::Error),
    #[error("all balances together are {found}, not {expected}: money was made or lost")]
    Total { expected: u128, found: u128 },
}

impl Audit {
    /// An audit of accounts whose balances `balance` takes out of their values.
    #[must_use]
    pub fn new(expected: Vec<(Key, u128)>, balance: fn(&[u8]) -> Option<u128>) -> Self {
        Self { expected, balance }
    }

    /// Reads all balances from a cluster, as they were after one epoch, and checks them: each by
    /// itself if everything built so far has committed, else only all of them together. Returns
    /// the epoch.
    ///
    /// # Errors
    /// [`AuditFailure::Unread`] if the cluster did not answer, else what is wrong.
    pub async fn run(
        &self,
        client: &Client,
        all_committed: bool,
    ) -> Result<EpochNumber, AuditFailure> {
        let keys: Vec<_> = self.keys().cloned().collect();
        let (epoch, values) = client.read(&keys, ReadAt::Latest).await?;
        match all_committed {
            true => self.check_balances(&values)?,
            false => self.check_total(&values)?,
        }
        Ok(epoch)
    }

    /// The keys to read, all at one epoch.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.expected.iter().map(|(key, _)| key)
    }

    /// Checks that all balances together are what they were at first: true after every epoch,
    /// whatever has committed.
    ///
    /// # Errors
    /// [`AuditFailure::Total`] if they are not; the others if `values` are not those of the keys.
    pub fn check_total(&self, values: &[Option<Value>]) -> Result<(), AuditFailure> {
        let expected = self.expected.iter().map(|(_, balance)| balance).sum();
        let found = self.balances(values)?.iter().sum();
        if found == expected { Ok(()) } else { Err(AuditFailure::Total { expected, found }) }
    }

    /// Checks each balance: what it must be if everything built so far has committed.
    ///
    /// # Errors
    /// [`AuditFailure::Balance`] for the first account that has another one; the others if
    /// `values` are not those of the keys.
    pub fn check_balances(&self, values: &[Option<Value>]) -> Result<(), AuditFailure> {
        let balances = self.balances(values)?;
        let mut pairs = self.expected.iter().zip(balances);
        match pairs.find(|((_, expected), found)| expected != found) {
            None => Ok(()),
            Some(((key, expected), found)) => {
                Err(AuditFailure::Balance { key: key.clone(), expected: *expected, found })
            }
        }
    }

    fn balances(&self, values: &[Option<Value>]) -> Result<Vec<u128>, AuditFailure> {
        let (expected, found) = (self.expected.len(), values.len());
        if expected != found {
            return Err(AuditFailure::Length { expected, found });
        }
        let balance = |(key, value): (&Key, &Option<Value>)| {
            let value = value.as_ref().map_or(&[][..], |value| &value[..]);
            (self.balance)(value).ok_or_else(|| AuditFailure::NotABalance { key: key.clone() })
        };
        self.keys().zip(values).map(balance).collect()
    }
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
