//! Requests of the execution layer to the consensus layer (EIP-7685): deposits that are log entries,
//! and what two contracts have queued.

use alloy_eips::{eip6110, eip7002, eip7251};
use alloy_primitives::{Address, B256, U256, b256};
use parsec_ethereum::BlockTransaction;
use parsec_protocol::Event;
use sha2::{Digest as _, Sha256};

use super::error::Reason;
use super::execute::Run;

/// The topic of a log entry that is a deposit: the hash of `DepositEvent(bytes,bytes,bytes,bytes,bytes)`.
const DEPOSIT_TOPIC: B256 =
    b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");
/// The lengths of a deposit's five fields: public key, withdrawal credentials, amount, signature,
/// index.
const DEPOSIT_FIELDS: [usize; 5] = [48, 32, 8, 96, 8];
/// The length of their encoding.
const DEPOSIT_BYTES: usize = 576;
const WORD: usize = 32;

/// The contracts whose queues are emptied after every block, and the types of their requests.
const QUEUES: [(&str, Address, u8); 2] = [
    (
        "withdrawal requests",
        eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
        eip7002::WITHDRAWAL_REQUEST_TYPE,
    ),
    (
        "consolidation requests",
        eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
        eip7251::CONSOLIDATION_REQUEST_TYPE,
    ),
];

/// The hash of a block's requests.
pub(super) fn requests_hash(
    run: &mut Run<'_>,
    transactions: &[BlockTransaction],
) -> Result<B256, Reason> {
    let mut hash = Sha256::new();
    let mut add = |kind: u8, data: &[u8]| {
        if !data.is_empty() {
            hash.update(Sha256::new().chain_update([kind]).chain_update(data).finalize());
        }
    };
    let deposits = deposits(&run.spec.deposit_contract, transactions)?;
    add(eip6110::DEPOSIT_REQUEST_TYPE, &deposits);
    for (what, contract, kind) in QUEUES {
        let failed = |detail: &str| Reason::System { contract: what, detail: detail.to_owned() };
        match run.call_system(contract, &[])? {
            Some(Ok(requests)) => add(kind, &requests),
            Some(Err(why)) => return Err(failed(&format!("it failed: {why}"))),
            None => return Err(failed("it is not there")),
        }
    }
    Ok(B256::new(hash.finalize().into()))
}

/// The deposits among the log entries, one after the other.
fn deposits(contract: &Address, transactions: &[BlockTransaction]) -> Result<Vec<u8>, Reason> {
    let events = transactions.iter().flat_map(|transaction| &transaction.receipt.events);
    let mut deposits = Vec::new();
    for event in events.filter(|event| event.source[..] == contract[..]) {
        if event.topics.first() == Some(&DEPOSIT_TOPIC.0) {
            deposits.extend(deposit(event).ok_or_else(|| Reason::System {
                contract: "deposits",
                detail: "a log entry is no deposit".to_owned(),
            })?);
        }
    }
    Ok(deposits)
}

/// The fields of a deposit, which must be encoded as the contract does it.
fn deposit(event: &Event) -> Option<Vec<u8>> {
    let data = &event.data[..];
    let word = |at: usize| {
        let word = data.get(at..at + WORD).and_then(U256::try_from_be_slice)?;
        usize::try_from(word).ok()
    };
    if data.len() != DEPOSIT_BYTES {
        return None;
    }
    let mut fields = Vec::new();
    let mut at = DEPOSIT_FIELDS.len() * WORD;
    for (index, length) in DEPOSIT_FIELDS.into_iter().enumerate() {
        if word(index * WORD)? != at || word(at)? != length {
            return None;
        }
        fields.extend_from_slice(data.get(at + WORD..at + WORD + length)?);
        at += WORD + length.next_multiple_of(WORD);
    }
    Some(fields)
}
