//! Raw Ethereum transactions.
//!
//! Input: the bytes of a transaction, of any type. Admission with and without what only imported
//! blocks may have; the chain id is that of the transaction, so that it does not end everything.

use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, TxKind, address, keccak256};
use bytes::Bytes;
use parsec_protocol::{RuntimeId, Transaction};
use parsec_runtimes::Runtime as _;
use parsec_runtimes::evm::{EvmRuntime, payload};

use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "evm_payload", run, seeds };

fn run(input: &[u8]) -> Verdict {
    let raw = Bytes::copy_from_slice(input);
    let decoded = payload::decode(&raw).ok();
    let chain_id = decoded.as_ref().and_then(|signed| signed.chain_id()).unwrap_or(1);
    let transaction = Transaction::new(RuntimeId::EVM, raw.clone());
    let usual = EvmRuntime::new(chain_id);
    let imports = EvmRuntime::for_import(chain_id);
    assert!(!usual.likely_keys(&[0; 20], &raw).is_empty());
    let imported = match (usual.admit(&transaction), imports.admit(&transaction)) {
        (Ok(admitted), imported) => {
            assert_eq!(imported, Ok(admitted.clone()), "imports admit what clients may send");
            admitted
        }
        (Err(_), Ok(imported)) => imported,
        (Err(_), Err(_)) => return Verdict::Refused,
    };
    let signed = decoded.expect("what is admitted is a transaction");
    assert_eq!(signed.encoded_2718(), input, "a transaction has one encoding, and so one id");
    assert_eq!(imported.id.0, keccak256(input).0);
    assert_eq!(signed.tx_hash().0, imported.id.0);
    let sender = payload::signer(&signed, true).unwrap();
    assert_eq!(imported.sender, sender.as_slice());
    Verdict::Accepted
}

/// Transactions of every type, signed so that somebody is found to have sent them.
fn seeds() -> Vec<Seed> {
    let input = alloy_primitives::Bytes::from_static(&[0xa9, 0x05, 0x9c, 0xbb, 1, 2, 3]);
    samples::ethereum::all(TxKind::Call(CALLEE), &input)
        .into_iter()
        .chain([("creation", samples::ethereum::legacy(TxKind::Create, &input, None))])
        .map(|(name, raw)| Seed::new(name, raw))
        .collect()
}

const CALLEE: Address = address!("00000000000000000000000000000000000000cc");
