//! System contracts, on a chain of Prague that a test makes: what a block's execution comes to is
//! learnt from the refusals of a header that says nothing.

use alloy_consensus::{Header, SignableTransaction as _, TxLegacy};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_eips::eip4895::Withdrawal;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Bytes as Data, Signature, TxKind, hex};
use secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::evm::Fork;
use crate::evm::fees::{DynamicFee, Parent, next_base_fee};
use crate::evm::payload::SignedTransaction;

const ETHER: u64 = 1_000_000_000_000_000_000;

fn key() -> SecretKey {
    SecretKey::from_byte_array([7; 32]).unwrap()
}

fn sender() -> Address {
    let public = PublicKey::from_secret_key(&Secp256k1::new(), &key()).serialize_uncompressed();
    Address::from_slice(&keccak256(&public[1..])[12..])
}

/// A call with value 1 by the sender.
fn call(nonce: u64, to: Address, input: Vec<u8>) -> Vec<u8> {
    let tx = TxLegacy {
        chain_id: Some(1),
        nonce,
        gas_price: 2_000_000_000,
        gas_limit: 500_000,
        to: TxKind::Call(to),
        value: U256::ONE,
        input: Data::from(input),
    };
    let digest = Message::from_digest(tx.signature_hash().0);
    let signed = Secp256k1::new().sign_ecdsa_recoverable(digest, &key());
    let (parity, scalars) = signed.serialize_compact();
    let signature = Signature::from_bytes_and_parity(&scalars, i32::from(parity) == 1);
    SignedTransaction::from(tx.into_signed(signature)).encoded_2718()
}

struct World {
    verifier: Verifier,
}

impl World {
    /// A chain with the system contracts but those that are left out, and some code.
    fn without(left_out: &[Address], contracts: &[(Address, Data)]) -> Self {
        let mut codes = vec![
            (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
            (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
            (
                eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
                eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone(),
            ),
            (
                eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
                eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone(),
            ),
        ];
        codes.extend_from_slice(contracts);
        let account = |(address, code): (Address, Data)| {
            (address, GenesisAccount { nonce: 1, code, ..GenesisAccount::default() })
        };
        let codes = codes.into_iter().filter(|(address, _)| !left_out.contains(address));
        let mut accounts: BTreeMap<_, _> = codes.map(account).collect();
        let rich = GenesisAccount { balance: U256::from(ETHER), ..GenesisAccount::default() };
        accounts.insert(sender(), rich);
        let spec = ChainSpec::new(1, Fork::named("Prague").unwrap());
        let entries = entries(&spec.params(30_000_000), &accounts);
        let state: BTreeMap<Key, Value> = entries.into_iter().collect();
        let header = Header {
            state_root: StateTrie::of(&state).unwrap().root(),
            gas_limit: 30_000_000,
            base_fee_per_gas: Some(7),
            withdrawals_root: Some(alloy_trie::EMPTY_ROOT_HASH),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::ZERO),
            requests_hash: Some(B256::ZERO),
            ..Header::default()
        };
        Self { verifier: Verifier::new(spec, &accounts, header, true).unwrap() }
    }

    /// Takes a block of transactions and withdrawals; its header says what it comes to.
    fn take(
        &mut self,
        transactions: &[Vec<u8>],
        withdrawals: &[Withdrawal],
    ) -> Result<(Verified, Header), Reason> {
        let parent = self.verifier.head().clone();
        let raw: Vec<Bytes> = transactions.iter().map(|raw| raw.clone().into()).collect();
        let mut header = Header {
            parent_hash: self.verifier.hash(),
            number: parent.number + 1,
            timestamp: parent.timestamp + 12,
            ommers_hash: alloy_consensus::EMPTY_OMMER_ROOT_HASH,
            transactions_root: crate::evm::block::transactions_root(&raw),
            withdrawals_root: Some(alloy_consensus::proofs::calculate_withdrawals_root(
                withdrawals,
            )),
            base_fee_per_gas: Some(next_base_fee(&Parent::from(&parent), &DynamicFee::MAINNET)),
            parent_beacon_block_root: Some(B256::repeat_byte(0xbe)),
            ..parent
        };
        let list = |items: &[u8]| {
            let mut list = Vec::new();
            alloy_rlp::Header { list: true, payload_length: items.len() }.encode(&mut list);
            [&list, items].concat()
        };
        let withdrawals: Vec<u8> = withdrawals.iter().flat_map(alloy_rlp::encode).collect();
        loop {
            let parts = [
                alloy_rlp::encode(&header),
                list(&transactions.concat()),
                list(&[]),
                list(&withdrawals),
            ];
            match self.verifier.take(&list(&parts.concat())).map_err(|refused| refused.reason) {
                Ok(verified) => return Ok((verified, header)),
                Err(Reason::Result { field, found, .. }) => learn(&mut header, field, &found),
                Err(reason) => return Err(reason),
            }
        }
    }

    fn word(&self, contract: &Address, slot: u64) -> U256 {
        let value = self.verifier.state().get(&keys::storage(contract, 0, U256::from(slot)));
        keys::decode_word(value).unwrap()
    }
}

/// Lets a header say what was found.
fn learn(header: &mut Header, field: &str, found: &str) {
    match field {
        "gas used" => header.gas_used = found.parse().unwrap(),
        "logs bloom" => header.logs_bloom = found.parse().unwrap(),
        "receipts root" => header.receipts_root = found.parse().unwrap(),
        "requests hash" => header.requests_hash = Some(found.parse().unwrap()),
        "state root" => header.state_root = found.parse().unwrap(),
        field => panic!("{field}"),
    }
}

/// The hash of requests of one type.
fn hash(kind: u8, data: &[u8]) -> B256 {
    let one = Sha256::new().chain_update([kind]).chain_update(data).finalize();
    B256::new(Sha256::digest(one).into())
}

#[test]
fn a_block_tells_contracts_of_the_blocks_before() {
    let mut world = World::without(&[], &[]);
    let parent = world.verifier.hash();
    world.take(&[], &[]).unwrap();
    assert_eq!(world.word(&eip2935::HISTORY_STORAGE_ADDRESS, 0), U256::from_be_bytes(parent.0));
    // The ring of EIP-4788 has 8,191 places: the time, then the root.
    let root = U256::from_be_bytes([0xbe; 32]);
    assert_eq!(world.word(&eip4788::BEACON_ROOTS_ADDRESS, 12), U256::from(12));
    assert_eq!(world.word(&eip4788::BEACON_ROOTS_ADDRESS, 12 + 8_191), root);
}

#[test]
fn contracts_that_are_told_need_not_be_there_and_those_that_are_asked_must() {
    let told = [eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS];
    assert!(World::without(&told, &[]).take(&[], &[]).is_ok());
    for asked in [
        eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
        eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
    ] {
        let reason = World::without(&[asked], &[]).take(&[], &[]).unwrap_err();
        assert!(matches!(reason, Reason::System { .. }), "{reason}");
        // 0xfe is no instruction.
        let broken = (asked, Data::from_static(&[0xfe]));
        let reason = World::without(&[], &[broken]).take(&[], &[]).unwrap_err();
        assert!(matches!(reason, Reason::System { .. }), "{reason}");
    }
}

#[test]
fn a_request_to_withdraw_is_in_the_hash_of_requests() {
    let mut world = World::without(&[], &[]);
    let (pubkey, amount) = ([0x11; 48], 5_u64);
    let input = [&pubkey[..], &amount.to_be_bytes()].concat();
    let contract = eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS;
    let (verified, header) = world.take(&[call(0, contract, input)], &[]).unwrap();
    assert!(verified.block.transactions[0].succeeded());
    let request = [sender().as_slice(), &pubkey, &amount.to_le_bytes()].concat();
    assert_eq!(header.requests_hash, Some(hash(1, &request)));
}

#[test]
fn withdrawals_are_paid_in_gwei_and_nothing_is_made_of_nothing() {
    let mut world = World::without(&[], &[]);
    let (one, none) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let withdrawal = |address, amount| Withdrawal { index: 0, validator_index: 0, address, amount };
    world.take(&[], &[withdrawal(one, 3), withdrawal(none, 0), withdrawal(one, 4)]).unwrap();
    let record = |address| {
        let value = world.verifier.state().get(&keys::account(address))?;
        Some(keys::AccountRecord::decode(value).unwrap().balance)
    };
    assert_eq!(record(&one), Some(U256::from(7_000_000_000_u64)));
    assert_eq!(record(&none), None);
}

/// The data of a deposit, as the contract encodes it.
fn deposit() -> Vec<u8> {
    let fields = [vec![1; 48], vec![2; 32], vec![3; 8], vec![4; 96], vec![5; 8]];
    let word = |number: usize| U256::from(number).to_be_bytes::<32>().to_vec();
    let (mut offsets, mut tail) = (Vec::new(), Vec::new());
    for field in fields {
        offsets.extend(word(5 * 32 + tail.len()));
        tail.extend(word(field.len()));
        let padded = field.len().next_multiple_of(32);
        tail.extend(field.into_iter().chain(std::iter::repeat(0)).take(32.max(padded)));
    }
    [offsets, tail].concat()
}

/// Code that logs its input with the topic of deposits.
fn logs_deposits() -> Data {
    let topic = "649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5";
    // CALLDATACOPY(0, 0, CALLDATASIZE); LOG1(0, CALLDATASIZE, topic).
    let code = format!("365f5f377f{topic}365fa100");
    Data::from(hex::decode(code).unwrap())
}

#[test]
fn deposits_are_read_from_the_log_as_the_contract_writes_them() {
    let contract = alloy_eips::eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS;
    let world = || World::without(&[], &[(contract, logs_deposits())]);
    let valid = deposit();
    assert_eq!(valid.len(), 576);
    let (_, header) = world().take(&[call(0, contract, valid.clone())], &[]).unwrap();
    let fields = [vec![1; 48], vec![2; 32], vec![3; 8], vec![4; 96], vec![5; 8]].concat();
    assert_eq!(header.requests_hash, Some(hash(0, &fields)));
    // Offsets and lengths are checked.
    for at in [31, 159, 5 * 32 + 31, 575 - 32] {
        let mut other = valid.clone();
        other[at] ^= 1;
        let reason = world().take(&[call(0, contract, other)], &[]).unwrap_err();
        assert!(matches!(reason, Reason::System { contract: "deposits", .. }), "{reason}");
    }
    let short = valid[..575].to_vec();
    assert!(world().take(&[call(0, contract, short)], &[]).is_err());
    // Another contract may log what it likes.
    let other = Address::repeat_byte(0x66);
    let mut world = World::without(&[], &[(other, logs_deposits())]);
    let (_, header) = world.take(&[call(0, other, valid)], &[]).unwrap();
    assert_eq!(header.requests_hash, Some(B256::new(Sha256::digest([]).into())));
}
