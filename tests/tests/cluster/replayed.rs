//! One recorded log leads to one state, on however many partitions.

use parsec_tests::{House, Replayed, Shape, sum_of};

use crate::load::{CLIENTS, History, Load};
use crate::workload::sample;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_leads_to_the_same_state_on_any_number_of_partitions() {
    let recorded = House::in_memory(Shape::new(3, 1, 2));
    let running = recorded.start().await;
    let mut load = Load::new(&running, 25, History::default()).await;
    for round in sample(5, 150, CLIENTS) {
        load.run(&running, &round).await;
    }
    let status = running.settled().await;
    load.history.check(&recorded, &status);
    running.stop().await;

    for (hosts, partitions_per_host) in [(1, 1), (1, 2), (3, 1), (2, 2), (2, 4)] {
        let shape = Shape::new(hosts, partitions_per_host, 2);
        let house = House::over_log_of(&recorded.options, shape);
        let running = house.start().await;
        let again = running.settled().await;
        assert_eq!(usize::from(again.partitions_total), again.partitions.len());
        assert_eq!(sum_of(&again), sum_of(&status), "{shape:?}");
        Replayed::of(&house.options).assert_agrees(&again);
        // Homes are in the log, so receipts are found where they were if that is still there.
        if hosts * partitions_per_host >= status.partitions_total {
            load.history.submit_again(&running).await;
            assert_eq!(running.settled().await.transactions, status.transactions, "{shape:?}");
        }
        running.stop().await;
    }
}
