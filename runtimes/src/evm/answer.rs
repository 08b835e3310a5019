//! Questions to the Ethereum runtime, as they come over a wire: a [`Query`] in JSON, answered by a
//! `Result<Answer, QueryError>` in JSON.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use bytes::Bytes;
use parsec_ethereum::{Query, QueryError};
use parsec_protocol::{ErrorCode, Key, Value};

use super::simulate::{self, Reader};
use crate::{Rejection, Snapshot};

/// Answers a question about a state.
///
/// # Errors
/// [`ErrorCode::Malformed`] if the question is none, and what the snapshot says if it can't be
/// read.
pub(super) fn answer(
    chain_id: u64,
    snapshot: &mut dyn Snapshot,
    question: &[u8],
) -> Result<Bytes, Rejection> {
    let malformed = |error: serde_json::Error| {
        Rejection::new(ErrorCode::Malformed, format!("it is no question: {error}"))
    };
    let query: Query = serde_json::from_slice(question).map_err(malformed)?;
    let mut reader = Remembering { snapshot, known: BTreeMap::new(), failure: None };
    let answer = simulate::answer(chain_id, &mut reader, &query);
    match reader.failure {
        Some(failure) => Err(failure),
        None => serde_json::to_vec(&answer).map(Bytes::from).map_err(malformed),
    }
}

/// Reads a snapshot, and remembers what was fetched together and why it could not be read.
struct Remembering<'a> {
    snapshot: &'a mut dyn Snapshot,
    known: BTreeMap<Key, Option<Value>>,
    failure: Option<Rejection>,
}

impl Remembering<'_> {
    fn fail(&mut self, failure: Rejection) -> QueryError {
        let error = QueryError::Unavailable(failure.detail.clone());
        self.failure.get_or_insert(failure);
        error
    }
}

impl Reader for Remembering<'_> {
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError> {
        if let Some(value) = self.known.get(key) {
            return Ok(value.clone());
        }
        match self.snapshot.values(std::slice::from_ref(key)) {
            Ok(values) => Ok(values.into_iter().next().flatten()),
            Err(failure) => Err(self.fail(failure)),
        }
    }

    fn block_hash(&mut self, number: u64) -> Result<Option<B256>, QueryError> {
        match self.snapshot.block_hash(number) {
            Ok(hash) => Ok(hash.map(B256::new)),
            Err(failure) => Err(self.fail(failure)),
        }
    }

    fn prefetch(&mut self, keys: &[Key]) {
        match self.snapshot.values(keys) {
            Ok(values) => self.known.extend(keys.iter().cloned().zip(values)),
            Err(failure) => {
                self.fail(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, U256};
    use parsec_ethereum::{Account, Answer};

    use super::*;
    use crate::evm::keys::{self, AccountRecord};

    struct Fixed(BTreeMap<Key, Value>, Option<ErrorCode>);

    impl Snapshot for Fixed {
        fn values(&mut self, keys: &[Key]) -> Result<Vec<Option<Value>>, Rejection> {
            match self.1 {
                Some(code) => Err(Rejection::new(code, "gone")),
                None => Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect()),
            }
        }

        fn block_hash(&mut self, _: u64) -> Result<Option<[u8; 32]>, Rejection> {
            Ok(None)
        }
    }

    #[test]
    fn a_question_is_answered_in_json_and_a_failure_keeps_its_code() {
        let address = Address::repeat_byte(7);
        let record = AccountRecord { balance: U256::from(5), nonce: 3 };
        let state = BTreeMap::from([(keys::account(&address), record.encode())]);
        let question = serde_json::to_vec(&Query::Account(address)).unwrap();
        let told = answer(1, &mut Fixed(state.clone(), None), &question).unwrap();
        let told: Result<Answer, QueryError> = serde_json::from_slice(&told).unwrap();
        let Ok(Answer::Account(Account { balance, nonce, .. })) = told else { panic!("{told:?}") };
        assert_eq!((balance, nonce), (U256::from(5), 3));

        let gone = answer(1, &mut Fixed(state.clone(), Some(ErrorCode::NotKept)), &question);
        assert_eq!(gone.unwrap_err().code, ErrorCode::NotKept);
        let nonsense = answer(1, &mut Fixed(state, None), b"{}").unwrap_err();
        assert_eq!(nonsense.code, ErrorCode::Malformed);
    }
}
