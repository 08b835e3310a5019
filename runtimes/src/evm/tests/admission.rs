//! What is admitted, and what is refused.

use alloy_consensus::{TxEip4844, TxEip7702};
use alloy_primitives::{B256, address, hex};
use alloy_rlp::Encodable;
use parsec_protocol::ErrorCode;
use proptest::prelude::*;

use super::*;
use crate::evm::{AUTHORIZATIONS_MAX, TRANSACTION_BYTES_MAX};
use crate::{Admitted, Rejection};

/// The example of EIP-155: chain 1, signed with the key 0x46….
const EXAMPLE: [u8; 110] = hex!(
    "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080"
    "25a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb7"
    "03304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
);

fn admit(runtime: &EvmRuntime, raw: impl Into<Bytes>) -> Result<Admitted, Rejection> {
    runtime.admit(&Transaction::new(RuntimeId::EVM, raw))
}

fn refusal(runtime: &EvmRuntime, raw: impl Into<Bytes>) -> ErrorCode {
    admit(runtime, raw).unwrap_err().code
}

#[test]
fn the_example_of_eip_155_is_admitted_on_its_chain_only() {
    let admitted = admit(&EvmRuntime::new(1), EXAMPLE.to_vec()).unwrap();
    let sender = address!("9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
    assert_eq!(admitted.sender, sender.as_slice());
    assert_eq!(admitted.id.0, keccak256(EXAMPLE).0);
    assert_eq!(admitted.footprint, None);
    assert_eq!(refusal(&EvmRuntime::new(2), EXAMPLE.to_vec()), ErrorCode::WrongChain);
}

#[test]
fn what_is_cut_or_longer_is_malformed() {
    let runtime = EvmRuntime::new(1);
    for length in 0..EXAMPLE.len() {
        assert_eq!(refusal(&runtime, EXAMPLE[..length].to_vec()), ErrorCode::Malformed);
    }
    assert_eq!(refusal(&runtime, [&EXAMPLE[..], &[0]].concat()), ErrorCode::Malformed);
}

#[test]
fn a_salt_is_refused() {
    let mut transaction = Transaction::new(RuntimeId::EVM, EXAMPLE.to_vec());
    transaction.salt = 1;
    let rejection = EvmRuntime::new(1).admit(&transaction).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::Malformed);
}

#[test]
fn what_is_too_long_is_refused_before_it_is_decoded() {
    let runtime = EvmRuntime::new(1);
    let long = vec![0xff; TRANSACTION_BYTES_MAX + 1];
    assert_eq!(refusal(&runtime, long.clone()), ErrorCode::TooLarge);
    assert_eq!(refusal(&EvmRuntime::for_import(1), long), ErrorCode::Malformed);
}

fn transfer(chain_id: Option<u64>) -> TxLegacy {
    TxLegacy { chain_id, gas_limit: 21_000, ..TxLegacy::default() }
}

/// A transaction signed by the twin of its signature.
fn malleated(wallet: &Wallet, transaction: TxLegacy) -> Bytes {
    const ORDER: U256 = U256::from_be_bytes(hex!(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
    ));
    let raw = wallet.sign(transaction);
    let signed = crate::evm::payload::decode(&raw).unwrap();
    let SignedTransaction::Legacy(signed) = signed else { unreachable!() };
    let (transaction, signature, _) = signed.into_parts();
    let twin = Signature::new(signature.r(), ORDER - signature.s(), !signature.v());
    SignedTransaction::from(transaction.into_signed(twin)).encoded_2718().into()
}

#[test]
fn a_malleable_signature_is_for_imports_only() {
    let wallet = Wallet::new(1);
    let raw = malleated(&wallet, transfer(None));
    assert_eq!(refusal(&EvmRuntime::new(CHAIN), raw.clone()), ErrorCode::BadSignature);
    let admitted = admit(&EvmRuntime::for_import(CHAIN), raw).unwrap();
    assert_eq!(admitted.sender, wallet.address.as_slice());
}

#[test]
fn a_legacy_transaction_may_be_for_any_chain() {
    let raw = Wallet::new(1).sign(transfer(None));
    assert!(admit(&EvmRuntime::new(CHAIN), raw).is_ok());
}

#[test]
fn signatures_that_are_none_are_refused() {
    let signed = |r: U256, s: U256| -> Bytes {
        let transaction = transfer(Some(CHAIN)).into_signed(Signature::new(r, s, false));
        SignedTransaction::from(transaction).encoded_2718().into()
    };
    let runtime = EvmRuntime::new(CHAIN);
    for (r, s) in [(0, 1), (1, 0), (0, 0)] {
        assert_eq!(
            refusal(&runtime, signed(U256::from(r), U256::from(s))),
            ErrorCode::BadSignature
        );
    }
    assert_eq!(refusal(&runtime, signed(U256::MAX, U256::ONE)), ErrorCode::BadSignature);
    // The v of the example is 37; 29 is that of no signature.
    let mut raw = EXAMPLE.to_vec();
    assert_eq!(raw[43], 37);
    raw[43] = 29;
    assert_eq!(refusal(&EvmRuntime::new(1), raw), ErrorCode::BadSignature);
}

fn with_blobs(wallet: &Wallet) -> Bytes {
    wallet.sign(TxEip4844 {
        chain_id: CHAIN,
        blob_versioned_hashes: vec![B256::with_last_byte(1)],
        ..TxEip4844::default()
    })
}

/// The form in which clients send blobs: a list of the transaction, and of its blobs, commitments
/// and proofs.
fn in_network_form(raw: &Bytes) -> Bytes {
    let mut inner = raw[1..].to_vec();
    for bytes in [131_072, 48, 48] {
        vec![alloy_primitives::Bytes::from(vec![1; bytes])].encode(&mut inner);
    }
    let mut whole = vec![3];
    alloy_rlp::Header { list: true, payload_length: inner.len() }.encode(&mut whole);
    [whole, inner].concat().into()
}

#[test]
fn blobs_are_refused_in_both_forms_and_the_reason_is_told() {
    let raw = with_blobs(&Wallet::new(1));
    let network = in_network_form(&raw);
    assert!(network.len() > TRANSACTION_BYTES_MAX);
    for raw in [raw.clone(), network] {
        let rejection = admit(&EvmRuntime::new(CHAIN), raw).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::Unsupported);
        assert!(rejection.detail.contains("type 3"), "{rejection}");
        assert!(rejection.detail.contains("blobs"), "{rejection}");
    }
    assert!(admit(&EvmRuntime::for_import(CHAIN), raw).is_ok());
}

#[test]
fn a_type_that_ethereum_does_not_have_is_named() {
    let rejection = admit(&EvmRuntime::new(CHAIN), vec![5, 0xc0]).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::Unsupported);
    assert!(rejection.detail.contains("type 5"), "{rejection}");
}

#[test]
fn authorizations_are_limited_for_clients() {
    let wallet = Wallet::new(1);
    let with = |count: usize| {
        let authorization = delegations::authorize(&wallet, CHAIN, Address::ZERO, 0);
        wallet.sign(TxEip7702 {
            chain_id: CHAIN,
            authorization_list: vec![authorization; count],
            ..TxEip7702::default()
        })
    };
    let runtime = EvmRuntime::new(CHAIN);
    assert_eq!(refusal(&runtime, with(0)), ErrorCode::Malformed);
    assert!(admit(&runtime, with(1)).is_ok());
    assert!(admit(&runtime, with(AUTHORIZATIONS_MAX)).is_ok());
    assert_eq!(refusal(&runtime, with(AUTHORIZATIONS_MAX + 1)), ErrorCode::TooLarge);
    for count in [0, AUTHORIZATIONS_MAX + 1] {
        assert!(admit(&EvmRuntime::for_import(CHAIN), with(count)).is_ok());
    }
}

#[test]
fn the_keys_of_a_transfer_are_foreseen() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let raw = wallet.legacy(TxKind::Call(Address::repeat_byte(9)), 1, Bytes::new());
    let likely = world.runtime.likely_keys(wallet.address.as_slice(), &raw);
    let (_, footprint) = world.run_with_footprint(&raw);
    let read = footprint.accesses().iter().filter(|access| access.mode.needs_value());
    for access in read {
        assert!(likely.contains(&access.key), "{}", access.key);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused(
        raw in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            (0u8..6, prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(kind, rest)| [&[kind], &rest[..]].concat()),
        ],
        import: bool,
    ) {
        let runtime = if import { EvmRuntime::for_import(1) } else { EvmRuntime::new(1) };
        prop_assert!(admit(&runtime, raw).is_err());
    }

    #[test]
    fn a_transaction_with_a_flipped_bit_is_refused_or_another_ones(index in 0usize..110, bit in 0u8..8) {
        let mut raw = EXAMPLE.to_vec();
        raw[index] ^= 1 << bit;
        let original = admit(&EvmRuntime::new(1), EXAMPLE.to_vec()).unwrap();
        if let Ok(admitted) = admit(&EvmRuntime::new(1), raw) {
            prop_assert_ne!(admitted.sender, original.sender);
        }
    }
}
