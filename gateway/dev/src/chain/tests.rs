//! Tests of the chain.

mod history;

use std::collections::BTreeMap;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Bytes, Signature, TxKind, bytes};
use parsec_gateway::Refused;
use parsec_protocol::ErrorCode;
use parsec_runtimes::evm::SignedTransaction;
use proptest::prelude::*;

use super::*;
use crate::accounts::{Accounts, MNEMONIC};
use crate::transaction::Submission;

const GWEI: u128 = 1_000_000_000;
const NOW: u64 = 1_800_000_000;
const ETHER: u128 = GWEI * GWEI;

struct Fixture {
    chain: DevChain,
    accounts: Accounts,
}

fn start(mining: Mining) -> Fixture {
    with(DevConfig { mining, ..DevConfig::default() })
}

fn with(config: DevConfig) -> Fixture {
    let accounts = Accounts::of_mnemonic(MNEMONIC, 4).unwrap();
    let funds = |address: &Address| (*address, U256::from(1_000 * ETHER));
    let funded = accounts.addresses().iter().map(funds).collect();
    let chain = DevChain::new(DevConfig { accounts: funded, ..config }, NOW).unwrap();
    Fixture { chain, accounts }
}

/// A transfer of one wei.
fn transfer(nonce: u64, to: Address) -> TxEip1559 {
    TxEip1559 {
        chain_id: 31_337,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(to),
        value: U256::ONE,
        ..TxEip1559::default()
    }
}

impl Fixture {
    fn address(&self, index: usize) -> Address {
        self.accounts.addresses()[index]
    }

    fn sign(&self, from: usize, tx: TxEip1559) -> Submission {
        let signature = self.accounts.sign(&self.address(from), tx.signature_hash()).unwrap();
        Submission::signed(&raw(tx.into_signed(signature).into())).unwrap()
    }

    fn submit(&mut self, transactions: Vec<Submission>) -> Vec<Result<B256, Refused>> {
        self.chain.submit(NOW, transactions.into_iter().map(Ok).collect()).unwrap()
    }

    fn send(&mut self, from: usize, tx: TxEip1559) -> Result<B256, Refused> {
        let signed = self.sign(from, tx);
        self.submit(vec![signed]).pop().unwrap()
    }

    fn blocks(&mut self) -> Vec<Arc<Block>> {
        let block = |output| match output {
            Output::Block(block) => Some(block),
            _ => None,
        };
        self.chain.take_outputs().into_iter().filter_map(block).collect()
    }
}

fn raw(transaction: SignedTransaction) -> bytes::Bytes {
    transaction.encoded_2718().into()
}

fn code(result: Result<B256, Refused>) -> (ErrorCode, String) {
    result.map_err(|refused| (refused.code, refused.detail)).unwrap_err()
}

#[test]
fn a_transfer_is_in_a_block_at_once() {
    let mut fixture = start(Mining::Auto);
    let to = Address::repeat_byte(9);
    let hash = fixture.send(0, transfer(0, to)).unwrap();
    let blocks = fixture.blocks();
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[1].number, blocks[1].transactions[0].hash()), (1, hash));
    assert!(blocks[1].transactions[0].succeeded());
    let (genesis, header) = (blocks[0].decode_header(), blocks[1].decode_header().unwrap());
    assert_eq!(header.parent_hash.0, blocks[0].hash);
    assert_eq!(genesis.unwrap().base_fee_per_gas, Some(1_000_000_000));
    assert_eq!(header.base_fee_per_gas, Some(875_000_000));
    assert_eq!(header.gas_used, 21_000);
    assert!(header.timestamp > NOW);
    assert_eq!(fixture.chain.balance(&to), U256::ONE);
    assert_eq!(fixture.chain.account(&fixture.address(0)).nonce, 1);
    let fee = U256::from(21_000 * (875_000_000 + GWEI));
    let left = U256::from(1_000 * ETHER) - U256::ONE - fee;
    assert_eq!(fixture.chain.balance(&fixture.address(0)), left);
}

#[test]
fn several_at_once_share_a_block_and_one_by_one_they_do_not() {
    let mut fixture = start(Mining::Auto);
    let to = Address::repeat_byte(9);
    let both = vec![fixture.sign(0, transfer(0, to)), fixture.sign(0, transfer(1, to))];
    assert!(fixture.submit(both).iter().all(Result::is_ok));
    assert_eq!(fixture.chain.latest(), 1);
    fixture.send(0, transfer(2, to)).unwrap();
    fixture.send(1, transfer(0, to)).unwrap();
    assert_eq!(fixture.chain.latest(), 3);
    assert_eq!(fixture.chain.balance(&to), U256::from(4));
}

#[test]
fn a_gap_waits_until_it_is_filled() {
    let mut fixture = start(Mining::Auto);
    let to = Address::repeat_byte(9);
    fixture.send(0, transfer(1, to)).unwrap();
    assert_eq!((fixture.chain.latest(), fixture.chain.pool().len()), (0, 1));
    assert_eq!(fixture.chain.next_nonce(&fixture.address(0)), 0);
    fixture.send(0, transfer(0, to)).unwrap();
    assert_eq!((fixture.chain.latest(), fixture.chain.pool().len()), (1, 0));
    assert_eq!(fixture.blocks()[1].transactions.len(), 2);
}

#[test]
fn what_can_not_be_executed_is_refused_in_the_words_that_tools_know() {
    let mut fixture = start(Mining::Manual);
    let to = Address::repeat_byte(9);
    let tx = transfer(0, to);
    fixture.send(0, tx.clone()).unwrap();
    let refusal = |fixture: &mut Fixture, tx| code(fixture.send(0, tx));
    let (known, detail) = refusal(&mut fixture, tx.clone());
    assert_eq!((known, detail.as_str()), (ErrorCode::AlreadyExists, "already known"));
    let cheaper = TxEip1559 { value: U256::from(2), ..tx.clone() };
    let underpriced = "replacement transaction underpriced".to_owned();
    assert_eq!(refusal(&mut fixture, cheaper), (ErrorCode::Underpriced, underpriced));
    let next = transfer(1, to);
    let rich = TxEip1559 { value: U256::from(2_000 * ETHER), ..next.clone() };
    let (broke, detail) = refusal(&mut fixture, rich);
    assert_eq!(broke, ErrorCode::InsufficientFunds);
    assert_eq!(detail, "Insufficient funds for gas * price + value");
    let little = TxEip1559 { gas_limit: 20_999, ..next.clone() };
    assert_eq!(refusal(&mut fixture, little).1, "intrinsic gas too low");
    let data = TxEip1559 { input: bytes!("01"), ..next.clone() };
    assert_eq!(refusal(&mut fixture, data).1, "intrinsic gas too low");
    let much = TxEip1559 { gas_limit: 30_000_001, ..next.clone() };
    assert_eq!(refusal(&mut fixture, much).0, ErrorCode::TooLarge);
    let cheap = TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 1, ..next.clone() };
    assert_eq!(refusal(&mut fixture, cheap).1, "max fee per gas less than block base fee");
    let tip = TxEip1559 { max_priority_fee_per_gas: 11 * GWEI, ..next.clone() };
    let detail = "max priority fee per gas higher than max fee per gas";
    assert_eq!(refusal(&mut fixture, tip).1, detail);
    let foreign = TxEip1559 { chain_id: 1, ..next.clone() };
    assert_eq!(refusal(&mut fixture, foreign).0, ErrorCode::WrongChain);
    let last = TxEip1559 { nonce: u64::MAX, ..next };
    assert_eq!(refusal(&mut fixture, last).0, ErrorCode::Overflow);
    fixture.chain.mine(NOW).unwrap();
    assert_eq!(refusal(&mut fixture, tx).1, "nonce too low");
}

#[test]
fn who_offers_more_takes_the_place() {
    let mut fixture = start(Mining::Manual);
    let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let old = fixture.send(0, transfer(0, one)).unwrap();
    let dearer = TxEip1559 { max_fee_per_gas: 20 * GWEI, ..transfer(0, other) };
    let new = fixture.send(0, dearer).unwrap();
    assert!(fixture.chain.pool().get(&old).is_none());
    fixture.chain.mine(NOW).unwrap();
    assert_eq!(fixture.blocks()[1].transactions[0].hash(), new);
    assert_eq!(fixture.chain.balance(&one), U256::ZERO);
}

#[test]
fn those_who_pay_more_come_first_and_gas_is_bounded() {
    let mut fixture =
        with(DevConfig { mining: Mining::Manual, gas_limit: 50_000, ..DevConfig::default() });
    let to = Address::repeat_byte(9);
    for (from, fee) in [(0, 10), (1, 30), (2, 20)] {
        let tx = TxEip1559 { max_fee_per_gas: fee * GWEI, ..transfer(0, to) };
        fixture.send(from, tx).unwrap();
    }
    fixture.chain.mine(NOW).unwrap();
    fixture.chain.mine(NOW).unwrap();
    let senders = |block: &Arc<Block>| -> Vec<Address> {
        block.transactions.iter().map(|tx| tx.sender()).collect()
    };
    let blocks = fixture.blocks();
    assert_eq!(senders(&blocks[1]), [fixture.address(1), fixture.address(2)]);
    assert_eq!(senders(&blocks[2]), [fixture.address(0)]);
}

#[test]
fn blobs_are_refused_even_without_their_content() {
    let mut fixture = start(Mining::Auto);
    let tx = TxEip4844 {
        chain_id: 31_337,
        gas_limit: 21_000,
        max_fee_per_gas: 10 * GWEI,
        max_fee_per_blob_gas: GWEI,
        blob_versioned_hashes: vec![B256::repeat_byte(1)],
        ..TxEip4844::default()
    };
    let signature = fixture.accounts.sign(&fixture.address(0), tx.signature_hash()).unwrap();
    let submission = Submission::signed(&raw(tx.into_signed(signature).into())).unwrap();
    let refusal = code(fixture.submit(vec![submission]).pop().unwrap());
    assert_eq!(refusal.0, ErrorCode::Unsupported);
    assert!(refusal.1.contains("4844"), "{}", refusal.1);
}

#[test]
fn impersonated_accounts_send_without_a_signature() {
    let mut fixture = start(Mining::Auto);
    let somebody = Address::repeat_byte(0x77);
    fixture.chain.set_balance(&somebody, U256::from(ETHER));
    // Contracts can be impersonated, too.
    fixture.chain.set_code(&somebody, &bytes!("00"));
    let tx = TxLegacy {
        chain_id: Some(31_337),
        gas_price: 10 * GWEI,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::ONE,
        ..TxLegacy::default()
    };
    let placeholder = Signature::new(U256::from(1), U256::ZERO, false);
    let raw = raw(tx.into_signed(placeholder).into());
    let submission = Submission::impersonated(&raw, somebody).unwrap();
    assert!(fixture.submit(vec![submission])[0].is_ok());
    let block = &fixture.blocks()[1];
    assert_eq!(block.transactions[0].sender(), somebody);
    assert!(block.transactions[0].succeeded());
}

#[test]
fn a_snapshot_takes_everything_back() {
    let mut fixture = start(Mining::Manual);
    let to = Address::repeat_byte(9);
    fixture.send(0, transfer(0, to)).unwrap();
    let waiting = fixture.send(0, transfer(2, to)).unwrap();
    fixture.chain.increase_time(1_000);
    fixture.chain.set_next_base_fee(7);
    let (first, root) = (fixture.chain.snapshot(NOW), fixture.chain.states.root());
    fixture.chain.set_balance(&to, U256::from(5));
    let second = fixture.chain.snapshot(NOW);
    for _ in 0..3 {
        fixture.chain.mine(NOW).unwrap();
    }
    fixture.chain.increase_time(50_000);
    fixture.chain.drop_transactions(None);
    assert!(fixture.chain.revert(NOW + 10, second));
    assert_eq!(fixture.chain.balance(&to), U256::from(5));
    assert!(fixture.chain.revert(NOW + 10, first));
    assert!(!fixture.chain.revert(NOW + 10, second));
    assert_eq!((fixture.chain.latest(), fixture.chain.states.root()), (0, root));
    let environment = fixture.chain.environment(NOW + 10);
    assert_eq!((environment.timestamp, environment.base_fee), (NOW + 1_000, 7));
    assert!(fixture.chain.pool().get(&waiting).is_some());
    fixture.chain.mine(NOW + 10).unwrap();
    assert_eq!(fixture.chain.balance(&to), U256::ONE);
}

#[test]
fn state_of_past_blocks_stays_within_the_window() {
    let mut fixture =
        with(DevConfig { mining: Mining::Auto, state_window: 3, ..DevConfig::default() });
    let to = Address::repeat_byte(9);
    for nonce in 0..6 {
        fixture.send(0, transfer(nonce, to)).unwrap();
    }
    assert_eq!(fixture.chain.oldest_state(), 3);
    for block in 3..=6 {
        let value = fixture.chain.value_at(&keys::account(&to), block).unwrap();
        assert_eq!(AccountRecord::decode(value).unwrap().balance, U256::from(block));
    }
    // A snapshot keeps what it needs.
    let snapshot = fixture.chain.snapshot(NOW);
    for nonce in 6..12 {
        fixture.send(0, transfer(nonce, to)).unwrap();
    }
    assert_eq!(fixture.chain.oldest_state(), 6);
    assert!(fixture.chain.revert(NOW, snapshot));
    assert_eq!(fixture.chain.balance(&to), U256::from(6));
}

#[test]
fn changes_count_for_the_latest_block_and_show_what_came_before() {
    let mut fixture = start(Mining::Auto);
    let (to, slot) = (Address::repeat_byte(9), U256::from(3));
    fixture.chain.mine(NOW).unwrap();
    fixture.chain.set_storage(&to, slot, U256::from(7));
    fixture.chain.set_nonce(&to, 5);
    let key = keys::storage(&to, 0, slot);
    assert_eq!(fixture.chain.value_at(&key, 1).map(|value| value[0]), Some(7));
    assert_eq!(fixture.chain.value_at(&key, 0), None);
    assert_eq!(fixture.chain.account(&to).nonce, 5);
    fixture.chain.reset();
    assert_eq!((fixture.chain.latest(), fixture.chain.account(&to).nonce), (0, 0));
}

/// Code that stores the hash of the block with the number in the call's data, in slot 0.
const HASH_STORE: Bytes = bytes!("5f3540 5f55 00");

#[test]
fn contracts_see_the_hashes_of_the_last_256_blocks_and_older_ones_where_they_are_kept() {
    let mut fixture = start(Mining::Auto);
    let contract = Address::repeat_byte(0xaa);
    fixture.chain.set_code(&contract, &HASH_STORE);
    fixture.chain.mine_many(NOW, 300, Some(1)).unwrap();
    for (nonce, block) in [(0, 300u64), (1, 46), (2, 44), (3, 1_000)] {
        let input = Bytes::from(U256::from(block).to_be_bytes::<32>());
        let tx = TxEip1559 { gas_limit: 100_000, input, ..transfer(nonce, contract) };
        fixture.send(0, TxEip1559 { value: U256::ZERO, ..tx }).unwrap();
        let stored = fixture.chain.states.get(&keys::storage(&contract, 0, U256::ZERO));
        let stored = keys::decode_word(stored).unwrap();
        let known = block >= fixture.chain.latest() - 256 && block < fixture.chain.latest();
        let hash = fixture.chain.block_hash(block).filter(|_| known).unwrap_or_default();
        assert_eq!(B256::from(stored), hash, "{block}");
    }
    let history = alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS;
    let word = fixture.chain.states.get(&keys::storage(&history, 0, U256::from(7)));
    let word = keys::decode_word(word).unwrap();
    assert_eq!(B256::from(word), fixture.chain.block_hash(7).unwrap());
}

#[test]
fn what_waits_can_be_seen_before_it_is_in_a_block() {
    let mut fixture = start(Mining::Manual);
    let to = Address::repeat_byte(9);
    fixture.send(0, transfer(0, to)).unwrap();
    let pending = fixture.chain.pending(NOW).unwrap();
    assert_eq!(pending.transactions.len(), 1);
    let record = pending.changed(&keys::account(&to)).unwrap().unwrap();
    assert_eq!(AccountRecord::decode(record).unwrap().balance, U256::ONE);
    assert_eq!(fixture.chain.balance(&to), U256::ZERO);
    let block = fixture.chain.mine(NOW).unwrap();
    assert_eq!(block.transactions, pending.transactions);
}

#[derive(Debug, Clone)]
enum Step {
    Send { from: usize, nonce_ahead: u64, to: u8, value: u64, fee: u64 },
    Mine,
    SetBalance(u8, u64),
    Wait(u64),
    Snapshot,
    Revert(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0usize..4, 0u64..2, 0u8..6, 0u64..1_000, 1u64..40);
    prop_oneof![
        6 => send.prop_map(|(from, nonce_ahead, to, value, fee)| {
            Step::Send { from, nonce_ahead, to, value, fee }
        }),
        1 => Just(Step::Mine),
        1 => (0u8..6, 0u64..1_000).prop_map(|(to, value)| Step::SetBalance(to, value)),
        1 => (0u64..100).prop_map(Step::Wait),
        1 => Just(Step::Snapshot),
        1 => any::<prop::sample::Index>().prop_map(Step::Revert),
    ]
}

impl Fixture {
    /// Takes a step, and returns the transaction that was sent, if one was.
    fn take(&mut self, step: &Step, now: &mut u64, taken: &mut Vec<SnapshotId>) {
        match *step {
            Step::Send { from, nonce_ahead, to, value, fee } => {
                let nonce = self.chain.next_nonce(&self.address(from)) + nonce_ahead;
                let tx = TxEip1559 {
                    max_fee_per_gas: u128::from(fee) * GWEI,
                    value: U256::from(value),
                    ..transfer(nonce, Address::repeat_byte(to + 1))
                };
                let signed = self.sign(from, tx);
                let results = self.chain.submit(*now, vec![Ok(signed)]).unwrap();
                assert_eq!(results.len(), 1);
            }
            Step::Mine => drop(self.chain.mine(*now).unwrap()),
            Step::SetBalance(to, value) => {
                self.chain.set_balance(&Address::repeat_byte(to + 1), U256::from(value));
            }
            Step::Wait(seconds) => *now += seconds,
            Step::Snapshot => taken.push(self.chain.snapshot(*now)),
            Step::Revert(index) if !taken.is_empty() => {
                let at = index.index(taken.len());
                assert!(self.chain.revert(*now, taken[at]));
                taken.truncate(at);
            }
            Step::Revert(_) => {}
        }
    }

    /// All that can be told of the chain.
    fn everything(&self) -> (u64, B256, String, Vec<B256>) {
        let waiting = self.chain.pool().senders().flat_map(|sender| {
            self.chain.pool().of(sender).map(|(_, tx)| tx.hash()).collect::<Vec<_>>()
        });
        let root = self.chain.states.trie_at(self.chain.states.latest()).root().to_string();
        (self.chain.latest(), self.chain.latest_hash(), root, waiting.collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_steps_lead_to_the_same_chain(
        steps in proptest::collection::vec(step(), 1..40),
        auto: bool,
    ) {
        let run = || {
            let mut fixture = start(if auto { Mining::Auto } else { Mining::Manual });
            let (mut now, mut taken) = (NOW, Vec::new());
            steps.iter().for_each(|step| fixture.take(step, &mut now, &mut taken));
            fixture
        };
        let (one, mut other) = (run(), run());
        prop_assert_eq!(one.everything(), other.everything());
        // Blocks follow one another, and what was taken back never shows.
        let mut chain: BTreeMap<u64, Arc<Block>> = BTreeMap::new();
        for output in other.chain.take_outputs() {
            match output {
                Output::Block(block) => {
                    let parent = block.decode_header().unwrap().parent_hash;
                    let before = block.number.checked_sub(1).map(|number| chain[&number].hash);
                    prop_assert_eq!(parent.0, before.unwrap_or_default());
                    chain.insert(block.number, block);
                }
                Output::Rewound(to) => drop(chain.split_off(&(to + 1))),
                Output::Arrived(_) => {}
            }
        }
        prop_assert_eq!(chain.len() as u64, other.chain.latest() + 1);
        // The root is that of the state, however it came about.
        let latest = other.chain.states.latest();
        let mut whole = parsec_runtimes::evm::trie::StateTrie::of(other.chain.states.iter_at(latest)).unwrap();
        prop_assert_eq!(whole.root(), other.chain.states.root());
    }

    #[test]
    fn a_revert_leaves_no_trace(
        before in proptest::collection::vec(step(), 0..20),
        after in proptest::collection::vec(step(), 0..20),
    ) {
        let mut fixture = start(Mining::Auto);
        let (mut now, mut taken) = (NOW, Vec::new());
        before.iter().for_each(|step| fixture.take(step, &mut now, &mut taken));
        let (was, snapshot) = (fixture.everything(), fixture.chain.snapshot(now));
        let environment = fixture.chain.environment(now);
        let mut later = now;
        for step in &after {
            // Older snapshots are not reverted to meanwhile.
            fixture.take(step, &mut later, &mut Vec::new());
        }
        prop_assert!(fixture.chain.revert(later, snapshot));
        prop_assert_eq!(fixture.everything(), was);
        prop_assert_eq!(fixture.chain.environment(later), environment);
    }
}
