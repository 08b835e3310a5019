//! Transactions that had no effect where they were ordered, and are ordered anew for those who want it.

use alloy_primitives::Address;
use bytes::Bytes;
use parsec_client::Client;
use parsec_protocol::{ErrorCode, Outcome, Receipt, Transaction};
use parsec_tests::{House, Replayed, Running, Shape, Wallet};

async fn run(running: &Running, client: &Client, transaction: &Transaction) -> Receipt {
    running.run(client, vec![transaction.clone()]).await.remove(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_too_early_is_ordered_anew_for_those_who_want_it() {
    let house = House::on_disk(Shape::FOUR);
    let running = house.start().await;
    let client = running.client().await;
    let wallet = Wallet::new(7, house.options.chain_id);
    let all: Vec<_> =
        (0..4).map(|nonce| wallet.sign_at(nonce, Some(Address::ZERO), Bytes::new())).collect();
    let renewing = |nonce: usize| Transaction { renews: true, ..all[nonce].clone() };
    let early = Outcome::Invalid(ErrorCode::NonceTooHigh);

    let [first, third] =
        [run(&running, &client, &all[1]).await, run(&running, &client, &all[3]).await];
    assert_eq!((&first.outcome, &third.outcome), (&early, &early));
    assert!(run(&running, &client, &all[0]).await.is_committed());
    assert_eq!(run(&running, &client, &all[1]).await, first, "nobody asked for another one");
    let second = run(&running, &client, &renewing(1)).await;
    assert!(second.is_committed() && second.position > first.position, "{second:?}");
    assert_eq!(run(&running, &client, &renewing(1)).await, second, "it took effect once");
    assert_eq!(run(&running, &client, &all[1]).await, second);
    running.settled().await;
    running.stop().await;

    // Now only the index and the receipt on disk say what was.
    let running = house.start().await;
    let client = running.client().await;
    assert_eq!(run(&running, &client, &all[3]).await, third);
    assert_eq!(run(&running, &client, &renewing(1)).await, second);
    let early_again = run(&running, &client, &renewing(3)).await;
    assert_eq!(early_again.outcome, early);
    assert!(early_again.position > third.position);
    assert!(run(&running, &client, &all[2]).await.is_committed());
    assert!(run(&running, &client, &renewing(3)).await.is_committed());
    let status = running.settled().await;
    running.stop().await;
    Replayed::with_renewals(&house.options).assert_agrees(&status);
}
