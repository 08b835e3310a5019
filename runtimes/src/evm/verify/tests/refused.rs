//! Blocks of a valid chain with one thing changed.

use alloy_consensus::Header;
use alloy_primitives::{Address, Bloom, Bytes as Data};
use proptest::prelude::*;

use super::*;

/// A block's parts as they are encoded.
struct Parts {
    header: Header,
    rest: Vec<Vec<u8>>,
}

impl Parts {
    fn of(raw: &[u8]) -> Self {
        let mut rest = raw;
        let mut list = alloy_rlp::Header::decode_bytes(&mut rest, true).unwrap();
        let mut parts = Vec::new();
        while !list.is_empty() {
            let (item, after) = body::item(list).unwrap();
            parts.push(item.to_vec());
            list = after;
        }
        let header = alloy_rlp::decode_exact(&parts[0]).unwrap();
        Self { header, rest: parts.split_off(1) }
    }

    fn with(&self, change: Change) -> Self {
        let mut header = self.header.clone();
        change(&mut header);
        Self { header, rest: self.rest.clone() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut content = alloy_rlp::encode(&self.header);
        content.extend(self.rest.concat());
        let mut block = Vec::new();
        alloy_rlp::Header { list: true, payload_length: content.len() }.encode(&mut block);
        block.extend(content);
        block
    }
}

type Change = fn(&mut Header);

/// What is changed in a header, and the field that it is then refused for.
const CHANGES: [(&str, Change); 17] = [
    ("parent hash", |header| header.parent_hash.0[0] ^= 1),
    ("number", |header| header.number += 1),
    ("timestamp", |header| header.timestamp = 0),
    ("gas limit", |header| header.gas_limit *= 2),
    ("gas used", |header| header.gas_used += 1),
    ("extra data", |header| header.extra_data = Data::from(vec![0; 33])),
    ("difficulty", |header| header.difficulty += U256::ONE),
    ("ommers hash", |header| header.ommers_hash.0[0] ^= 1),
    ("transactions root", |header| header.transactions_root.0[0] ^= 1),
    ("withdrawals root", |header| header.withdrawals_root.as_mut().unwrap().0[0] ^= 1),
    ("base fee", |header| *header.base_fee_per_gas.as_mut().unwrap() += 1),
    ("blob gas used", |header| *header.blob_gas_used.as_mut().unwrap() += 131_072),
    ("excess blob gas", |header| *header.excess_blob_gas.as_mut().unwrap() += 1),
    ("receipts root", |header| header.receipts_root.0[0] ^= 1),
    ("logs bloom", |header| header.logs_bloom = Bloom::repeat_byte(0x55)),
    ("requests hash", |header| header.requests_hash.as_mut().unwrap().0[0] ^= 1),
    ("state root", |header| header.state_root.0[0] ^= 1),
];

/// Whether a header has the field.
fn has(header: &Header, field: &str) -> bool {
    match field {
        "base fee" => header.base_fee_per_gas.is_some(),
        "withdrawals root" => header.withdrawals_root.is_some(),
        "blob gas used" | "excess blob gas" => header.blob_gas_used.is_some(),
        "requests hash" => header.requests_hash.is_some(),
        _ => true,
    }
}

fn field(refused: &RefusedBlock) -> &str {
    match &refused.reason {
        Reason::Header { field, .. } | Reason::Result { field, .. } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn a_block_with_a_wrong_header_is_refused_for_what_is_wrong_and_leaves_no_trace() {
    let Some(data) = data() else { return };
    let (genesis, blocks) = chain(&data);
    let mut verifier = verifier(&genesis, true);
    for raw in &blocks {
        let parts = Parts::of(raw);
        for (expected, change) in CHANGES {
            if has(&parts.header, expected) {
                let refused = verifier.take(&parts.with(change).encode()).unwrap_err();
                assert_eq!(field(&refused), expected, "{refused}");
            }
        }
        // Who earns fees and the reward shows in the state alone, which receipts before Byzantium
        // have the root of.
        if !parts.header.difficulty.is_zero() {
            let changed = parts.with(|header| header.beneficiary = Address::repeat_byte(0x77));
            let refused = verifier.take(&changed.encode()).unwrap_err();
            let shows = if parts.header.number < 9 { "receipts root" } else { "state root" };
            assert_eq!(field(&refused), shows, "{refused}");
        }
        verifier.take(raw).unwrap();
    }
}

#[test]
fn a_block_without_one_of_its_transactions_is_refused() {
    let Some(data) = data() else { return };
    let (genesis, blocks) = chain(&data);
    let mut verifier = verifier(&genesis, true);
    let mut parts = Parts::of(&blocks[0]);
    parts.rest[0] = vec![0xc0];
    let refused = verifier.take(&parts.encode()).unwrap_err();
    assert_eq!(field(&refused), "transactions root");
    parts.header.transactions_root = alloy_trie::EMPTY_ROOT_HASH;
    let refused = verifier.take(&parts.encode()).unwrap_err();
    assert_eq!(field(&refused), "gas used");
}

#[test]
fn ommers_must_be_new_and_no_siblings() {
    let Some(data) = data() else { return };
    let (genesis, blocks) = chain(&data);
    let mut verifier = verifier(&genesis, true);
    let ommers_of = |number: usize| Parts::of(&blocks[number - 1]).rest[1].clone();
    for raw in &blocks[..4] {
        verifier.take(raw).unwrap();
    }
    let mut refuse = |ommers: Vec<u8>| {
        let mut parts = Parts::of(&blocks[4]);
        parts.header.ommers_hash = keccak256(&ommers);
        parts.rest[1] = ommers;
        verifier.take(&parts.encode()).unwrap_err().reason.to_string()
    };
    assert_eq!(refuse(ommers_of(4)), "ommer 0: it is known already");
    // An ancestor, and a sibling.
    let headers = |numbers: &[usize]| {
        let all: Vec<u8> = numbers
            .iter()
            .flat_map(|number| alloy_rlp::encode(Parts::of(&blocks[number - 1]).header))
            .collect();
        let mut list = Vec::new();
        alloy_rlp::Header { list: true, payload_length: all.len() }.encode(&mut list);
        [list, all].concat()
    };
    assert_eq!(refuse(headers(&[3])), "ommer 0: it is known already");
    assert_eq!(refuse(headers(&[5])), "ommer 0: it is a sibling");
    assert_eq!(refuse(headers(&[9])), "ommer 0: its parent is no recent ancestor");
    assert_eq!(refuse(headers(&[1, 2, 3])), "ommer 2: a block has at most 2");
}

#[test]
fn a_transaction_that_can_t_be_executed_refuses_its_block() {
    let Some(data) = data() else { return };
    let (genesis, blocks) = chain(&data);
    let mut verifier = verifier(&genesis, true);
    // The same transactions twice: their nonces are used up.
    let mut parts = Parts::of(&blocks[0]);
    let mut list = &parts.rest[0][..];
    let payload = alloy_rlp::Header::decode_bytes(&mut list, true).unwrap().repeat(2);
    let mut twice = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut twice);
    parts.rest[0] = [twice, payload].concat();
    let raw = Body::decode(&parts.encode()).unwrap().transactions;
    let raw: Vec<Bytes> = raw.into_iter().map(|tx| tx.raw).collect();
    parts.header.transactions_root = crate::evm::block::transactions_root(&raw);
    let Reason::Transaction { index, code, .. } =
        verifier.take(&parts.encode()).unwrap_err().reason
    else {
        panic!("a transaction")
    };
    assert_eq!((index, code), (raw.len() / 2, parsec_protocol::ErrorCode::NonceTooLow));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_block_with_a_changed_byte_is_another_block_or_none(
        number in 0usize..54,
        at: prop::sample::Index,
        bits in 1u8..,
    ) {
        let Some(data) = data() else { return Ok(()) };
        let (genesis, blocks) = chain(&data);
        let mut verifier = verifier(&genesis, false);
        for raw in &blocks[..number] {
            verifier.take(raw).unwrap();
        }
        let mut changed = blocks[number].to_vec();
        let at = at.index(changed.len());
        changed[at] ^= bits;
        let real = body::hash_of(&blocks[number]);
        // Some bytes are free, but for the hash of the block.
        if let Ok(verified) = verifier.take(&changed) {
            prop_assert_ne!(B256::new(verified.block.hash), real);
        } else {
            prop_assert!(verifier.take(&blocks[number]).is_ok());
        }
    }

    #[test]
    fn bytes_that_are_no_block_are_refused(bytes: Vec<u8>) {
        prop_assert!(Body::decode(&bytes).is_err());
    }
}
