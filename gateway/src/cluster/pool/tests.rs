use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const RICH: u128 = 1_000_000;

fn sender(number: u8) -> Address {
    Address::repeat_byte(number)
}

fn signed(from: u8, nonce: u64, fee: u128) -> Signed {
    let mut hash = B256::repeat_byte(from);
    hash[..8].copy_from_slice(&nonce.to_be_bytes());
    hash[8..24].copy_from_slice(&fee.to_be_bytes());
    let raw = vec![from; 10].into();
    Signed { hash, sender: sender(from), nonce, cost: U256::from(fee), fee, tip: fee, raw }
}

fn account(nonce: u64, balance: u128) -> Account {
    Account { balance: U256::from(balance), nonce, code_hash: None }
}

/// A pool that knows that account.
fn pool(from: u8, nonce: u64, balance: u128) -> Pool {
    let mut pool = Pool::default();
    assert!(pool.on_account(sender(from), &account(nonce, balance)));
    pool
}

/// The nonces that are handed over now.
fn handed_over(pool: &mut Pool) -> Vec<u64> {
    std::iter::from_fn(|| pool.next_handed_over()).map(|signed| signed.nonce).collect()
}

fn refusal(result: Result<(), Declined>) -> (ErrorCode, String) {
    match result {
        Err(Declined::Refused(refused)) => (refused.code, refused.detail),
        other => panic!("not refused: {other:?}"),
    }
}

fn in_block(pool: &mut Pool, signed: &Signed) {
    pool.on_block_transaction(signed.hash, signed.sender, signed.nonce);
}

#[test]
fn those_behind_a_gap_wait_until_it_is_filled() {
    let mut pool = pool(1, 5, RICH);
    for nonce in [7, 8, 5, 10] {
        pool.insert(signed(1, nonce, 1), false).unwrap();
    }
    assert_eq!(handed_over(&mut pool), [5]);
    assert_eq!(pool.next_nonce(&sender(1), 5), 6);
    let nonces = |part: &BTreeMap<Address, BTreeMap<u64, PoolTransaction>>| {
        part.values().flat_map(|of| of.keys().copied()).collect::<Vec<_>>()
    };
    assert_eq!(nonces(&pool.shown().pending), [5]);
    assert_eq!(nonces(&pool.shown().queued), [7, 8, 10]);
    pool.insert(signed(1, 6, 1), false).unwrap();
    assert_eq!(handed_over(&mut pool), [6, 7, 8]);
    assert_eq!(pool.next_nonce(&sender(1), 5), 9);
    // Somebody else fills the second one, through another gateway.
    in_block(&mut pool, &signed(1, 9, 77));
    assert_eq!(handed_over(&mut pool), [10]);
    assert_eq!(nonces(&pool.shown().pending), [10]);
}

#[test]
fn an_account_is_asked_for_when_it_is_unknown_or_seems_too_poor() {
    let mut pool = Pool::default();
    assert_eq!(pool.insert(signed(1, 0, 4), false), Err(Declined::AskAccount));
    pool.on_account(sender(1), &account(0, 10));
    pool.insert(signed(1, 0, 6), false).unwrap();
    assert_eq!(pool.insert(signed(1, 1, 5), false), Err(Declined::AskAccount));
    let (code, detail) = refusal(pool.insert(signed(1, 1, 5), true));
    assert_eq!(code, ErrorCode::InsufficientFunds);
    assert_eq!(
        detail,
        "insufficient funds for gas * price + value: balance 10, queued cost 6, tx cost 5, overshot 1"
    );
    pool.insert(signed(1, 1, 4), false).unwrap();
    // What is in a block is paid; what it left over is known once somebody asks again.
    in_block(&mut pool, &signed(1, 0, 6));
    assert_eq!(pool.insert(signed(1, 2, 1), false), Err(Declined::AskAccount));
    pool.on_account(sender(1), &account(1, 7));
    pool.insert(signed(1, 2, 3), false).unwrap();
    let (code, detail) = refusal(pool.insert(signed(1, 0, 1), false));
    assert_eq!(
        (code, &*detail),
        (ErrorCode::NonceTooLow, "nonce too low: next nonce 1, tx nonce 0")
    );
}

#[test]
fn an_answer_that_is_older_than_a_block_does_not_count() {
    let mut pool = pool(1, 3, RICH);
    in_block(&mut pool, &signed(1, 3, 1));
    assert!(!pool.on_account(sender(1), &account(3, RICH)), "from before the block");
    assert_eq!(pool.insert(signed(1, 4, 1), false), Err(Declined::AskAccount));
    assert!(pool.on_account(sender(1), &account(4, RICH)));
    pool.insert(signed(1, 4, 1), false).unwrap();
}

#[test]
fn what_waits_is_replaced_by_what_offers_a_tenth_more() {
    let mut pool = pool(1, 0, RICH);
    pool.insert(signed(1, 1, 100), false).unwrap();
    let (code, detail) = refusal(pool.insert(signed(1, 1, 109), false));
    assert_eq!((code, &*detail), (ErrorCode::Underpriced, "replacement transaction underpriced"));
    pool.insert(signed(1, 1, 110), false).unwrap();
    let known = pool.insert(signed(1, 1, 110), false);
    let Err(Declined::Refused(refused)) = known else { panic!("it is known: {known:?}") };
    assert_eq!(refused.known, Some(signed(1, 1, 110).hash));
    assert_eq!(pool.get(&signed(1, 1, 100).hash), None);
    pool.insert(signed(1, 0, 1), false).unwrap();
    assert_eq!(handed_over(&mut pool), [0, 1]);
    let (code, detail) = refusal(pool.insert(signed(1, 1, 500), false));
    assert_eq!(code, ErrorCode::Underpriced);
    assert!(detail.starts_with("replacement transaction underpriced: 0x"), "{detail}");
}

#[test]
fn what_came_too_early_goes_again_behind_the_one_that_strayed() {
    let mut pool = pool(1, 0, RICH);
    let all: Vec<_> = (0..4).map(|nonce| signed(1, nonce, 1)).collect();
    all.iter().for_each(|signed| pool.insert(signed.clone(), false).unwrap());
    assert_eq!(handed_over(&mut pool), [0, 1, 2, 3]);
    for early in [&all[1], &all[2]] {
        pool.on_invalid(early.hash, ErrorCode::NonceTooHigh);
        assert_eq!(handed_over(&mut pool), [0; 0], "the one before them is under way");
    }
    in_block(&mut pool, &all[0]);
    assert_eq!(handed_over(&mut pool), [1, 2]);
    // The last one comes back only now, and waits in its turn.
    pool.on_invalid(all[3].hash, ErrorCode::NonceTooHigh);
    assert_eq!(handed_over(&mut pool), [0; 0]);
    in_block(&mut pool, &all[1]);
    in_block(&mut pool, &all[2]);
    assert_eq!(handed_over(&mut pool), [3]);
    pool.on_invalid(all[3].hash, ErrorCode::InsufficientFunds);
    assert_eq!(pool.get(&all[3].hash), None, "for this there is no other time");
    assert_eq!(pool.next_nonce(&sender(1), 3), 3);
}

#[test]
fn a_transaction_is_not_handed_over_for_ever() {
    let mut pool = pool(1, 0, RICH);
    let signed = signed(1, 0, 1);
    pool.insert(signed.clone(), false).unwrap();
    let mut attempts = 0;
    while pool.next_handed_over().is_some() {
        attempts += 1;
        pool.on_invalid(signed.hash, ErrorCode::NonceTooHigh);
    }
    assert_eq!(attempts, PoolLimits::default().attempts);
    assert_eq!(pool.get(&signed.hash), None);
}

#[test]
fn a_full_pool_drops_what_waits_longest() {
    let mut pool = pool(1, 0, RICH);
    pool.limits = PoolLimits { transactions: 3, ..PoolLimits::default() };
    pool.on_account(sender(2), &account(0, RICH));
    pool.insert(signed(1, 3, 1), false).unwrap();
    pool.insert(signed(1, 0, 1), false).unwrap();
    pool.insert(signed(2, 0, 1), false).unwrap();
    pool.insert(signed(2, 1, 1), false).unwrap();
    assert_eq!(pool.get(&signed(1, 3, 1).hash), None);
    assert_eq!(pool.by_hash.len(), 3);
    let (code, detail) = refusal(pool.insert(signed(2, 2, 1), false));
    assert_eq!((code, &*detail), (ErrorCode::Busy, "txpool is full"));
    pool.limits = PoolLimits { waiting_per_sender: 1, ..PoolLimits::default() };
    pool.insert(signed(1, 7, 1), false).unwrap();
    let (code, detail) = refusal(pool.insert(signed(1, 8, 1), false));
    assert_eq!(code, ErrorCode::Busy);
    assert!(detail.contains("1 transactions of this account wait"), "{detail}");
}

#[test]
fn what_is_refused_because_the_pool_is_full_replaces_nothing() {
    let mut pool = pool(1, 0, RICH);
    pool.on_account(sender(2), &account(0, RICH));
    pool.insert(signed(1, 0, 1), false).unwrap();
    pool.insert(signed(2, 1, 100), false).unwrap();
    pool.limits = PoolLimits { bytes: 25, ..PoolLimits::default() };
    let large = Signed { raw: vec![0; 40].into(), ..signed(2, 1, 200) };
    assert_eq!(refusal(pool.insert(large, false)).0, ErrorCode::Busy);
    assert!(pool.get(&signed(2, 1, 100).hash).is_some());
    assert!(pool.senders.values().all(|of| of.idle.is_some() == of.by_nonce.is_empty()));
}

#[test]
fn who_has_no_transactions_is_forgotten_in_time() {
    let mut pool = pool(1, 0, RICH);
    pool.limits = PoolLimits { idle_senders: 2, ..PoolLimits::default() };
    pool.insert(signed(1, 0, 1), false).unwrap();
    for other in 2..5 {
        pool.on_account(sender(other), &account(0, RICH));
    }
    let known: Vec<_> = (1..5).filter(|number| pool.knows(&sender(*number))).collect();
    assert_eq!(known, [1, 3, 4], "the first has something here");
}

/// What may happen to a pool.
#[derive(Debug, Clone)]
enum Event {
    Insert {
        from: u8,
        nonce: u64,
        fee: u128,
    },
    /// The cluster orders the oldest that was handed over; it strays, so it goes again later.
    Stray,
    /// The cluster executes the oldest that was handed over.
    Execute,
    /// The cluster refuses it.
    Refuse,
    /// Somebody sends this elsewhere.
    Elsewhere {
        from: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..3, 0u64..12, 1u128..4)
            .prop_map(|(from, nonce, fee)| Event::Insert { from, nonce, fee }),
        2 => Just(Event::Stray),
        6 => Just(Event::Execute),
        1 => Just(Event::Refuse),
        1 => (0u8..3).prop_map(|from| Event::Elsewhere { from }),
    ]
}

/// A pool before a cluster that strays, refuses, and is used by others.
#[derive(Debug, Default)]
struct World {
    pool: Pool,
    nonces: [u64; 3],
    under_way: VecDeque<Arc<Signed>>,
}

impl World {
    fn step(&mut self, event: &Event) {
        match *event {
            Event::Insert { from, nonce, fee } => self.insert(signed(from, nonce, fee)),
            Event::Stray => {
                let strayed = self.under_way.pop_front();
                self.under_way.extend(strayed);
            }
            Event::Execute => self.execute(),
            Event::Refuse => {
                let refused = self.under_way.pop_front();
                refused.into_iter().for_each(|signed| self.pool.on_refused(signed.hash));
            }
            Event::Elsewhere { from } => {
                let nonce = self.nonces[usize::from(from)];
                self.include(&signed(from, nonce, 99));
            }
        }
        self.under_way.extend(std::iter::from_fn(|| self.pool.next_handed_over()));
        self.check();
    }

    fn insert(&mut self, signed: Signed) {
        if self.pool.insert(signed.clone(), false) == Err(Declined::AskAccount) {
            let nonce = self.nonces[usize::from(signed.sender[0])];
            assert!(self.pool.on_account(signed.sender, &account(nonce, RICH)));
            let again = self.pool.insert(signed, true);
            assert!(again != Err(Declined::AskAccount), "it was asked for");
        }
    }

    fn execute(&mut self) {
        let Some(signed) = self.under_way.pop_front() else { return };
        let next = self.nonces[usize::from(signed.sender[0])];
        match signed.nonce.cmp(&next) {
            std::cmp::Ordering::Equal => self.include(&signed),
            std::cmp::Ordering::Greater => {
                self.pool.on_invalid(signed.hash, ErrorCode::NonceTooHigh);
            }
            std::cmp::Ordering::Less => self.pool.on_invalid(signed.hash, ErrorCode::NonceTooLow),
        }
    }

    fn include(&mut self, signed: &Signed) {
        self.nonces[usize::from(signed.sender[0])] = signed.nonce + 1;
        in_block(&mut self.pool, signed);
    }

    fn check(&self) {
        let pool = &self.pool;
        let mut hashes = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        for (address, sender) in &pool.senders {
            let mut reserved = U256::ZERO;
            for (nonce, pooled) in &sender.by_nonce {
                assert!(*nonce >= sender.nonce && *nonce >= self.nonces[usize::from(address[0])]);
                assert_eq!(pool.by_hash[&pooled.signed.hash], (*address, *nonce));
                hashes.insert(pooled.signed.hash);
                reserved += pooled.signed.cost;
                match pooled.stage {
                    Stage::HandedOver => {
                        assert!(self.under_way.iter().any(|tx| tx.hash == pooled.signed.hash));
                    }
                    _ => {
                        waiting.insert(pooled.arrival);
                    }
                }
            }
            assert_eq!(sender.reserved, reserved);
            assert_eq!(sender.idle.is_some(), sender.by_nonce.is_empty());
            let next = (sender.nonce..).find(|nonce| !sender.by_nonce.contains_key(nonce));
            assert_eq!(Some(sender.next), next);
        }
        assert!(hashes.iter().eq(pool.by_hash.keys()));
        assert!(waiting.iter().eq(pool.waiting.keys()));
        assert!(hashes.len() <= pool.limits.transactions);
        assert_eq!(pool.bytes, 10 * hashes.len());
        assert_eq!(pool.waiting_bytes, 10 * waiting.len());
    }
}

proptest! {
    #[test]
    fn everything_without_a_gap_before_it_gets_into_a_block(
        events in proptest::collection::vec(event(), 1..200),
        transactions in 3usize..20,
    ) {
        let mut world = World::default();
        world.pool.limits = PoolLimits { transactions, idle_senders: 2, ..PoolLimits::default() };
        events.iter().for_each(|event| world.step(event));
        // From here on nothing goes wrong.
        for _ in 0..10_000 {
            if world.under_way.is_empty() {
                break;
            }
            world.step(&Event::Execute);
        }
        prop_assert!(world.under_way.is_empty());
        prop_assert!(world.pool.idle.len() <= 2);
        for (address, sender) in &world.pool.senders {
            prop_assert_eq!(sender.nonce, world.nonces[usize::from(address[0])]);
            prop_assert!(!sender.by_nonce.contains_key(&sender.nonce), "it could have gone");
        }
    }
}
