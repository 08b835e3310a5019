//! Taking blocks back, making others in their place, and taking the state elsewhere.

use super::*;

/// A chain of four blocks, each with one transfer.
fn four() -> Fixture {
    let mut fixture = start(Mining::Auto);
    for nonce in 0..4 {
        fixture.send(0, transfer(nonce, Address::repeat_byte(9))).unwrap();
    }
    fixture.blocks();
    fixture
}

#[test]
fn blocks_are_taken_back_with_all_that_they_did() {
    let mut fixture = four();
    let to = Address::repeat_byte(9);
    let hash = fixture.chain.block_hash(1);
    let late = fixture.chain.snapshot(NOW);
    fixture.chain.set_balance(&to, U256::from(77));
    fixture.chain.roll_back(3).unwrap();
    assert_eq!((fixture.chain.latest(), fixture.chain.block_hash(1)), (1, hash));
    assert_eq!(fixture.chain.balance(&to), U256::ONE);
    assert_eq!(fixture.chain.next_nonce(&fixture.address(0)), 1);
    assert!(matches!(fixture.chain.take_outputs()[..], [Output::Rewound(1)]));
    assert!(!fixture.chain.revert(NOW, late), "a snapshot of what is no more");
    assert!(fixture.chain.roll_back(2).is_err());
    fixture.send(0, transfer(1, to)).unwrap();
    assert_eq!(fixture.chain.latest(), 2);
}

#[test]
fn a_snapshot_of_before_outlives_what_is_taken_back() {
    let mut fixture = start(Mining::Auto);
    let early = fixture.chain.snapshot(NOW);
    fixture.send(0, transfer(0, Address::repeat_byte(9))).unwrap();
    fixture.chain.mine(NOW).unwrap();
    fixture.chain.roll_back(1).unwrap();
    assert!(fixture.chain.revert(NOW, early));
    assert_eq!(fixture.chain.latest(), 0);
}

#[test]
fn other_blocks_take_the_place_of_those_that_were() {
    let mut fixture = four();
    let (other, waits) = (Address::repeat_byte(8), transfer(5, Address::repeat_byte(9)));
    fixture.send(0, waits).unwrap();
    fixture.send(1, transfer(1, other)).unwrap();
    let old: Vec<B256> = (1..=4).map(|n| fixture.chain.block_hash(n).unwrap()).collect();
    let mut given = [vec![fixture.sign(1, transfer(0, other))], vec![], vec![]];
    given[1].push(fixture.sign(2, transfer(0, other)));
    given[1].push(fixture.sign(3, TxEip1559 { gas_limit: 1, ..transfer(0, other) }));
    fixture.chain.roll_back(3).unwrap();
    let refusal = fixture.chain.mine_instead(NOW, old[3], 3, |_, index| {
        let index = usize::try_from(index).unwrap();
        given[index].drain(..).map(Ok::<_, Refused>).collect()
    });
    assert_eq!(refusal.unwrap().unwrap().detail, "intrinsic gas too low");
    assert_eq!(fixture.chain.latest(), 4);
    assert_eq!(fixture.chain.block_hash(1), Some(old[0]));
    for (number, old) in (1..).zip(&old).skip(1) {
        assert_ne!(fixture.chain.block_hash(number), Some(*old), "{number}");
    }
    assert_eq!(fixture.chain.balance(&other), U256::from(2));
    // What waited waits still, and blocks are made at once again: that of the second account
    // only waited for the nonce that it has now.
    assert_eq!(fixture.chain.pool().len(), 2);
    fixture.send(2, transfer(1, other)).unwrap();
    assert_eq!(fixture.chain.latest(), 5);
    assert_eq!(fixture.chain.pool().len(), 1);
    assert_eq!(fixture.chain.balance(&other), U256::from(4));
}

#[test]
fn empty_blocks_in_the_place_of_empty_ones_are_others() {
    let mut fixture = start(Mining::Manual);
    fixture.chain.mine(NOW).unwrap();
    let old = fixture.chain.latest_hash();
    fixture.chain.roll_back(1).unwrap();
    let nothing = |_: &DevChain, _| Vec::<Result<Submission, Refused>>::new();
    fixture.chain.mine_instead(NOW, old, 1, nothing).unwrap();
    assert_ne!(fixture.chain.latest_hash(), old);
}

#[test]
fn a_state_stands_elsewhere_as_it_was() {
    let mut fixture = four();
    let contract = Address::repeat_byte(7);
    fixture.chain.set_code(&contract, &bytes!("602a5f5260205ff3"));
    fixture.chain.set_storage(&contract, U256::from(3), U256::from(4));
    let json = serde_json::to_string(&fixture.chain.dump()).unwrap();
    let mut other = start(Mining::Manual);
    other.chain.load(&serde_json::from_str(&json).unwrap());
    assert_eq!(other.chain.account(&contract), fixture.chain.account(&contract));
    assert_eq!(other.chain.dump(), fixture.chain.dump());
    other.chain.load(&serde_json::from_str(r#"{"accounts":{}}"#).unwrap());
    assert_eq!(other.chain.dump(), fixture.chain.dump());
}
