//! Ethereum blocks: the same on every host, however the cluster is shaped, and whatever it went
//! through.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256};
use parsec_bench::contracts;
use parsec_cli::cluster::ClusterOptions;
use parsec_cli::genesis::Genesis;
use parsec_client::{Client, Error};
use parsec_ethereum::Block;
use parsec_oracle::Oracle;
use parsec_protocol::{
    Entry, EpochNumber, ErrorCode, Outcome, Receipt, RuntimeId, Transaction, codec,
};
use parsec_runtimes::native::{Program, key};
use parsec_storage::LogReader;
use parsec_tests::{House, Running, Shape, Wallet};

/// All blocks, when block `last` is there.
async fn blocks(client: &Client, last: u64) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    while all.len() as u64 <= last {
        // A few at a time, so that it is asked more than once.
        let more = client.blocks(all.len() as u64, 7).await.unwrap();
        all.extend(more.iter().map(|block| codec::decode::<Block>(block).unwrap()));
    }
    all.truncate(usize::try_from(last).unwrap() + 1);
    all
}

/// Deploys a token and pays with it, with other things in between.
async fn run_some(running: &Running, house: &House, client: u64) {
    let chain_id = house.options.chain_id;
    let mut wallet = Wallet::new(client, chain_id);
    let token = wallet.next_contract();
    let deploy = contracts::deploy_token("Token", "T", U256::from(1_000));
    let mut transactions = vec![wallet.sign(None, deploy)];
    for n in 1..20 {
        // The later ones revert: there is no more to pay with.
        let amount = U256::from(100);
        let to = Address::repeat_byte(n);
        transactions.push(wallet.sign(Some(token), contracts::transfer(to, amount)));
        let salt = u128::from(client) << 8 | u128::from(n);
        transactions.push(Program::new().add(&key("n").unwrap(), 1).into_transaction(salt));
    }
    let connection = running.client().await;
    for part in transactions.chunks(5).map(<[Transaction]>::to_vec) {
        for result in running.run(&connection, part).await {
            result.unwrap();
        }
    }
}

/// The digest of the state after a block, and its transactions with their receipts.
type Expected = ([u8; 32], Vec<(Arc<Entry>, Receipt)>);

/// What the log says of each block, by the serial oracle.
fn serial(options: &ClusterOptions) -> Vec<Expected> {
    let mut oracle = Oracle::new(&options.runtimes);
    let mut blocks = Vec::new();
    for epoch in LogReader::open(&options.log()).unwrap().epochs() {
        let (record, batches) = epoch.unwrap();
        let receipts = oracle.apply(&record, &batches).unwrap();
        let entries = batches.iter().flat_map(|batch| batch.entries.clone());
        let executed = entries.zip(receipts);
        let included = executed.filter(|(entry, receipt)| {
            let ran = matches!(receipt.outcome, Outcome::Committed | Outcome::Reverted(_));
            entry.runtime == RuntimeId::EVM && ran
        });
        let is_block = record.batches.iter().any(|batch| batch.calls(RuntimeId::EVM));
        // The genesis is one epoch here.
        if is_block || record.number.0 == 1 {
            blocks.push((oracle.state_digest().0, included.collect()));
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_what_the_log_says_on_every_cluster_that_has_it() {
    let house = House::on_disk(Shape::FOUR);
    let running = house.start().await;
    tokio::join!(run_some(&running, &house, 1), run_some(&running, &house, 2));
    running.settled().await;

    let serial = serial(&house.options);
    let last = serial.len() as u64 - 1;
    let sealed = running.within(blocks(&running.client().await, last)).await;
    let mut parent = B256::ZERO;
    for ((number, block), (digest, included)) in (0..).zip(&sealed).zip(&serial) {
        let header: Header = block.decode_header().unwrap();
        assert_eq!((block.number, header.number, header.parent_hash), (number, number, parent));
        assert_eq!(header.hash_slow().0, block.hash);
        assert_eq!(header.state_root.0, *digest, "block {number}");
        let of_block = block.transactions.iter().map(|tx| (&tx.raw, &tx.sender[..], &tx.receipt));
        let expected =
            included.iter().map(|(entry, receipt)| (&entry.payload, &entry.sender[..], receipt));
        assert!(of_block.eq(expected), "block {number}");
        let gas: u64 = included.iter().map(|(_, receipt)| receipt.work).sum();
        assert_eq!(header.gas_used, gas);
        parent = B256::new(block.hash);
    }
    let reverted = |block: &Block| block.transactions.iter().any(|tx| !tx.succeeded());
    assert!(sealed.iter().any(reverted), "some transfers fail, and are in a block all the same");

    // After a restart, also one that lost them, and with other partitions, they are the same.
    running.stop().await;
    let again = house.start().await;
    assert_eq!(again.within(blocks(&again.client().await, last)).await, sealed);
    again.stop().await;
    std::fs::remove_dir_all(house.options.data.join("sequencer/blocks")).unwrap();
    let again = house.start().await;
    assert_eq!(again.within(blocks(&again.client().await, last)).await, sealed);
    run_some(&again, &house, 3).await;
    let next = again.within(blocks(&again.client().await, last + 1)).await;
    assert_eq!(next[..sealed.len()], sealed);
    assert_eq!(next.last().unwrap().decode_header().unwrap().parent_hash, parent);
    again.stop().await;
    let other = House::over_log_of(&house.options, Shape::new(1, 1, 2));
    let running = other.start().await;
    let same = running.within(blocks(&running.client().await, last)).await;
    assert_eq!(same, sealed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_cluster_has_block_zero_and_waits_for_the_next() {
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let client = running.client().await;
    let genesis = running.within(client.blocks(0, 10)).await.unwrap();
    assert_eq!(genesis.len(), 1);
    let (next, ()) =
        tokio::join!(running.within(client.blocks(1, 10)), run_some(&running, &house, 1));
    let first: Block = codec::decode(&next.unwrap()[0]).unwrap();
    let genesis: Block = codec::decode(&genesis[0]).unwrap();
    assert_eq!(first.decode_header().unwrap().parent_hash.0, genesis.hash);
    running.stop().await;
}

/// Announces the hash of the block before its own.
///
/// `PUSH1 1 NUMBER SUB BLOCKHASH PUSH0 MSTORE PUSH1 32 PUSH0 LOG0 STOP`, and what returns it.
const ASKING: [u8; 20] = [
    0x6b, 0x60, 0x01, 0x43, 0x03, 0x40, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xa0, 0x00, 0x5f, 0x52, 0x60,
    0x0c, 0x60, 0x14, 0xf3,
];

/// A block's hash depends on what became of its transactions, and yet those of the next block,
/// executed in parallel with it, may ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_the_block_before_is_what_every_contract_sees() {
    let house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let running = house.start().await;
    let mut wallet = Wallet::new(7, chain_id);
    let asking = wallet.next_contract();
    let connection = running.client().await;
    let deploy = wallet.sign(None, ASKING.to_vec().into());
    assert!(running.run(&connection, vec![deploy]).await[0].as_ref().unwrap().is_committed());

    let ask = async |number: u64| {
        let mut wallet = Wallet::new(number, chain_id);
        let connection = running.client().await;
        let mut receipts = Vec::new();
        for _ in 0..5 {
            let calls = (0..3).map(|_| wallet.sign(Some(asking), Vec::new().into()));
            receipts.extend(running.run(&connection, calls.collect()).await);
        }
        receipts
    };
    let (one, two, ()) = tokio::join!(ask(8), ask(9), run_some(&running, &house, 1));
    let status = running.settled().await;
    let replayed = parsec_tests::Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    let last = serial(&house.options).len() as u64 - 1;
    let sealed = running.within(blocks(&running.client().await, last)).await;
    let mut asked = 0;
    for receipt in one.into_iter().chain(two).map(Result::unwrap) {
        assert!(receipt.is_committed(), "{receipt:?}");
        let of_epoch = |block: &&Block| block.epoch == receipt.position.epoch;
        let block = sealed.iter().find(of_epoch).unwrap();
        let before = &sealed[usize::try_from(block.number - 1).unwrap()];
        assert_eq!(receipt.events[0].data[..], before.hash, "block {}", block.number);
        asked += 1;
    }
    assert_eq!(asked, 30);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_has_no_answer_gets_a_clear_one() {
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let now = running.settled().await.ordered;
    let client = running.client().await;
    let ask = async |runtime: u8, at: u64, question: &'static [u8]| {
        let asked = client.query(RuntimeId(runtime), EpochNumber(at), question.into());
        match running.within(asked).await {
            Err(Error::Failed { code, .. }) => Err(code),
            other => Ok(other.unwrap()),
        }
    };
    let account = br#"{"account":"0x0000000000000000000000000000000000000001"}"#;
    let told = ask(RuntimeId::EVM.0, now.0, account).await.unwrap();
    assert!(told.starts_with(br#"{"Ok":"#), "{told:?}");
    assert_eq!(ask(77, now.0, account).await, Err(ErrorCode::UnknownRuntime));
    assert_eq!(ask(RuntimeId::NATIVE.0, now.0, account).await, Err(ErrorCode::Unsupported));
    assert_eq!(ask(RuntimeId::EVM.0, now.0, b"{\"account\":7}").await, Err(ErrorCode::Malformed));
    assert_eq!(ask(RuntimeId::EVM.0, now.0, b"[[[[").await, Err(ErrorCode::Malformed));
    assert_eq!(ask(RuntimeId::EVM.0, now.0 + 9, account).await, Err(ErrorCode::Unavailable));
    running.stop().await;
}

/// A genesis may take several epochs, and the chain's parameters come in the last of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_keeps_its_parameters_however_long_its_genesis_is() {
    let mut house = House::in_memory(Shape::FOUR);
    let account = |n: u64| (format!("{}", Address::left_padding_from(&n.to_be_bytes())), n);
    let accounts: Vec<String> = (1..70_000)
        .map(account)
        .map(|(address, balance)| format!("\"{address}\": {{ \"balance\": \"{balance:#x}\" }}"))
        .collect();
    let text = format!(
        "{{ \"gas_limit\": 12345678, \"base_fee\": 0, \"accounts\": {{ {} }} }}",
        accounts.join(", ")
    );
    house.options.genesis = Genesis::parse(&text, house.options.chain_id).unwrap();
    let running = house.start().await;
    let sealed = running.within(blocks(&running.client().await, 0)).await;
    assert!(sealed[0].epoch > EpochNumber(1), "the genesis is one epoch");
    assert_eq!(sealed[0].decode_header().unwrap().gas_limit, 12_345_678);
    running.stop().await;
}
