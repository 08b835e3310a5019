//! The index against a scan of the blocks.

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes as Data, Signature, TxKind, U256};
use parsec_ethereum::{BlockTransaction, Environment};
use parsec_protocol::{EpochNumber, Event, Outcome, Position, Receipt, ShortBytes, TxId};
use parsec_runtimes::evm::block::Sealing;
use proptest::prelude::*;
use revm::primitives::hardfork::SpecId;

use super::*;
use crate::Transaction;

fn word(number: u8) -> [u8; 32] {
    [number; 32]
}

/// A transaction that wrote events: of a contract, with topics.
fn transaction(nonce: u64, sender: u8, events: &[Logged]) -> BlockTransaction {
    let content = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 100 + u128::from(sender),
        max_priority_fee_per_gas: u128::from(sender),
        to: TxKind::Call(Address::repeat_byte(sender ^ 1)),
        input: Data::from(vec![sender; usize::from(sender) * 20]),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from(1), U256::from(nonce + 1), false);
    let signed = Transaction::from(content.into_signed(signature));
    let receipt = Receipt {
        id: TxId(signed.trie_hash().0),
        position: Position { epoch: EpochNumber(1), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 21_000 + nonce,
        output: ShortBytes::new(),
        events: events
            .iter()
            .map(|(source, topics)| Event {
                source: vec![*source; 20].into(),
                topics: topics.iter().map(|topic| word(*topic)).collect(),
                data: vec![*source; 3].into(),
            })
            .collect(),
    };
    BlockTransaction {
        raw: signed.encoded_2718().into(),
        sender: [sender; 20],
        receipt,
        state_root: None,
    }
}

fn block(parent: Option<&Block>, time: u64, transactions: Vec<BlockTransaction>) -> Block {
    let number = parent.map_or(0, |parent| parent.number + 1);
    let environment = Environment {
        number,
        timestamp: time,
        gas_limit: 30_000_000,
        base_fee: 7,
        ..Environment::default()
    };
    let sealing = Sealing {
        fork: SpecId::OSAKA,
        environment: &environment,
        parent: parent.map_or(B256::ZERO, |parent| B256::new(parent.hash)),
        state_root: B256::ZERO,
        epoch: EpochNumber(number),
    };
    sealing.seal(transactions)
}

/// An event's contract and topics.
type Logged = (u8, Vec<u8>);

/// What happens to a chain.
#[derive(Debug, Clone)]
enum Step {
    /// Blocks of transactions, each of which is a sender and its events.
    Append(Vec<Vec<(u8, Vec<Logged>)>>),
    /// That many blocks are taken back, or all but the genesis.
    Rewind(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..4_u8, prop::collection::vec(0..3_u8, 0..=4));
    let tx = (0..4_u8, prop::collection::vec(event, 0..4));
    let blocks = prop::collection::vec(prop::collection::vec(tx, 0..6), 1..4);
    prop_oneof![
        6 => blocks.prop_map(Step::Append),
        2 => (0..4_u64).prop_map(Step::Rewind),
        1 => (0..40_u64).prop_map(Step::Rewind),
        1 => Just(Step::Reopen),
    ]
}

fn filter() -> impl Strategy<Value = LogFilter> {
    let addresses = prop::collection::vec((0..4_u8).prop_map(Address::repeat_byte), 0..3);
    let any = prop::collection::vec((0..3_u8).prop_map(B256::repeat_byte), 0..3);
    let topics = prop::collection::vec(any, 0..=4);
    (addresses, topics).prop_map(|(addresses, topics)| LogFilter { addresses, topics })
}

fn check_blocks(view: &View, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(view.block(block.number).unwrap().as_ref(), Some(block));
        assert_eq!(view.number_of(B256::new(block.hash)).unwrap(), Some(block.number));
        let hashes: Vec<B256> = block.transactions.iter().map(BlockTransaction::hash).collect();
        assert_eq!(view.hashes(block.number).unwrap(), hashes);
        let (mut gas, mut logs) = (0, 0);
        for (index, tx) in (0..).zip(&block.transactions) {
            let place = Place { number: block.number, index };
            let placed = view.placed(place).unwrap().unwrap();
            let expected =
                Placed { place, transaction: tx.clone(), gas_before: gas, logs_before: logs };
            assert_eq!(placed, expected);
            assert_eq!(view.transaction(tx.hash()).unwrap(), Some(expected));
            gas += tx.receipt.work;
            logs += tx.receipt.events.len() as u64;
        }
        let index = block.transactions.len().try_into().unwrap();
        let beyond = Place { number: block.number, index };
        assert_eq!(view.placed(beyond).unwrap(), None);
        let bought: u64 = view.fees(block.number).unwrap().iter().map(|paid| paid.1).sum();
        assert_eq!(bought, gas);
    }
    assert_eq!(view.head().number, blocks.len() as u64 - 1);
    assert!(view.header(blocks.len() as u64).unwrap().is_none());
}

fn check_logs(view: &View, blocks: &[Block], filter: &LogFilter, first: u64, last: u64) {
    let mut found = Vec::new();
    let visit = |logs: Vec<FoundLog>| {
        found.extend(logs.into_iter().map(|log| (log.place, log.index, log.event)));
        true
    };
    view.logs(filter, first, last, visit).unwrap();
    let mut scanned = Vec::new();
    let visit = |logs: Vec<FoundLog>| {
        scanned.extend(logs.into_iter().map(|log| (log.place, log.index, log.event)));
        true
    };
    view.past().scan(filter, first, last, visit).unwrap();
    assert_eq!(found, scanned);
    let mut expected = Vec::new();
    for block in blocks.iter().filter(|block| (first..=last).contains(&block.number)) {
        let mut log = 0;
        for (index, tx) in (0..).zip(&block.transactions) {
            for event in &tx.receipt.events {
                if filter.matches(event) {
                    expected.push((Place { number: block.number, index }, log, event.clone()));
                }
                log += 1;
            }
        }
    }
    assert_eq!(found, expected);
}

/// All places of a sender, forwards and backwards.
fn check_sender(view: &View, blocks: &[Block], sender: u8) {
    let mut expected = Vec::new();
    for block in blocks {
        for (index, tx) in (0..).zip(&block.transactions) {
            if tx.sender == [sender; 20] {
                expected.push(Place { number: block.number, index });
            }
        }
    }
    let term = Term::Sender(Address::repeat_byte(sender));
    let mut search = Search::new(view, [vec![term]]);
    let (mut forwards, mut from) = (Vec::new(), Some(Place::start(0)));
    while let Some(place) = from.and_then(|from| search.first_from(from).unwrap()) {
        forwards.push(place);
        from = place.next();
    }
    assert_eq!(forwards, expected);
    let (mut backwards, mut to) = (Vec::new(), Some(Place::end(u64::MAX)));
    while let Some(place) = to.and_then(|to| search.last_to(to).unwrap()) {
        backwards.push(place);
        to = place.previous();
    }
    backwards.reverse();
    assert_eq!(backwards, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_index_finds_what_a_scan_finds(
        steps in prop::collection::vec(step(), 1..20),
        filters in prop::collection::vec((filter(), 0..40_u64, 0..40_u64), 12),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut blocks = vec![block(None, 0, Vec::new())];
        let mut chain = Chain::open(&directory, &blocks[0]).unwrap();
        let mut nonce = 0;
        for step in steps {
            match step {
                Step::Append(contents) => {
                    let before = blocks.len();
                    for content in contents {
                        let transactions = content.iter().map(|(sender, events)| {
                            nonce += 1;
                            transaction(nonce, *sender, events)
                        });
                        let transactions = transactions.collect();
                        blocks.push(block(blocks.last(), nonce, transactions));
                    }
                    chain.append_all(&blocks[before..]).unwrap();
                }
                Step::Rewind(back) => {
                    let to = (blocks.len() as u64 - 1).saturating_sub(back);
                    chain.rewind(to).unwrap();
                    blocks.truncate(usize::try_from(to).unwrap() + 1);
                }
                Step::Reopen => {
                    drop(chain);
                    chain = Chain::open(&directory, &blocks[0]).unwrap();
                }
            }
        }
        let view = chain.view();
        check_blocks(&view, &blocks);
        for (filter, first, last) in &filters {
            check_logs(&view, &blocks, filter, *first, *last);
        }
        check_logs(&view, &blocks, &LogFilter::default(), 0, u64::MAX);
        (0..4).for_each(|sender| check_sender(&view, &blocks, sender));
    }
}

#[test]
fn postings_of_many_blocks_are_written_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut blocks = vec![block(None, 0, Vec::new())];
    let chain = Chain::open(&directory, &blocks[0]).unwrap();
    for nonce in 0..60 {
        let next = block(blocks.last(), nonce, vec![transaction(nonce, 1, &[(2, vec![1])])]);
        chain.append(&next).unwrap();
        blocks.push(next);
    }
    let written = *chain.posted.lock().unwrap();
    assert!(written.is_some_and(|through| through > 30), "{written:?}");
    check_blocks(&chain.view(), &blocks);
    chain.rewind(20).unwrap();
    blocks.truncate(21);
    assert_eq!(*chain.posted.lock().unwrap(), Some(20));
    check_blocks(&chain.view(), &blocks);
    let all = chain.view().tables.postings.iter();
    let latest = all.map(|record| record.key().unwrap()[8..16].to_vec()).max();
    assert!(latest.unwrap() <= 20_u64.to_be_bytes().to_vec());
}

#[test]
fn only_the_next_block_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let genesis = block(None, 0, Vec::new());
    let chain = Chain::open(&directory, &genesis).unwrap();
    let one = block(Some(&genesis), 1, Vec::new());
    let two = block(Some(&one), 2, Vec::new());
    assert!(matches!(chain.append(&two), Err(ChainError::Gap { number: 2, head: 0 })));
    assert!(matches!(chain.append(&genesis), Err(ChainError::Gap { number: 0, head: 0 })));
    let other = block(None, 9, Vec::new());
    let stranger = block(Some(&other), 1, Vec::new());
    assert!(matches!(chain.append(&stranger), Err(ChainError::Fork { number: 1, .. })));
    assert!(matches!(
        chain.append_all(&[one.clone(), stranger]),
        Err(ChainError::Gap { number: 1, head: 1 })
    ));
    assert_eq!(chain.head().number, 0);
    assert_eq!(chain.view().block(1).unwrap(), None);
    chain.append_all(&[one, two]).unwrap();
    assert!(matches!(chain.rewind(3), Err(ChainError::Ahead { number: 3, head: 2 })));
    drop(chain);
    let foreign = Chain::open(&directory, &other).err();
    assert!(matches!(foreign, Some(ChainError::Foreign { .. })), "{foreign:?}");
}

#[test]
fn a_view_and_a_change_show_the_chain_of_their_time() {
    let directory = tempfile::tempdir().unwrap();
    let genesis = block(None, 0, Vec::new());
    let chain = Chain::open(&directory, &genesis).unwrap();
    let mut changes = chain.subscribe();
    let tx = transaction(1, 2, &[(3, vec![1])]);
    let one = block(Some(&genesis), 1, vec![tx.clone()]);
    let before = chain.view();
    chain.append(&one).unwrap();
    assert_eq!(before.transaction(tx.hash()).unwrap(), None);
    chain.rewind(0).unwrap();
    let other = block(Some(&genesis), 5, Vec::new());
    chain.append(&other).unwrap();

    let Change::Appended { first: 1, now } = changes.try_recv().unwrap() else { panic!() };
    assert_eq!(now.block(1).unwrap(), Some(one.clone()));
    let Change::Rewound { before, now } = changes.try_recv().unwrap() else { panic!() };
    assert_eq!(before.block(1).unwrap(), Some(one));
    assert_eq!(now.head().number, 0);
    assert_eq!(chain.view().block(1).unwrap(), Some(other));
    assert_eq!(chain.view().transaction(tx.hash()).unwrap(), None);
}

#[test]
fn the_size_of_a_block_is_that_of_its_rlp() {
    use alloy_rlp::Encodable as _;
    let genesis = block(None, 0, Vec::new());
    let transactions: Vec<_> = (0..9).map(|n| transaction(n, 3, &[])).collect();
    let sealed = block(Some(&genesis), 1, transactions);
    let decoded = sealed.transactions.iter();
    let decoded = decoded.map(|tx| records::decode(1, &tx.raw).unwrap()).collect();
    let body = alloy_consensus::BlockBody::<Transaction> {
        transactions: decoded,
        ommers: Vec::new(),
        withdrawals: Some(Vec::new().into()),
    };
    let whole = alloy_consensus::Block::new(sealed.decode_header().unwrap(), body);
    assert_eq!(Head::of(&sealed).unwrap().size, whole.length() as u64);
}
