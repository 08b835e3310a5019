//! Clients that submit a workload, and remember all that they were told.

use std::collections::{BTreeMap, BTreeSet};

use parsec_client::{Client, Error};
use parsec_protocol::message::{ClusterStatus, ReadAt};
use parsec_protocol::{ErrorCode, Position, Receipt, Transaction, TxId};
use parsec_tests::{House, Replayed, Running, Sighting};

use crate::workload::{Step, all_keys};

/// How many clients there are.
pub(crate) const CLIENTS: usize = 3;

/// What clients were told, through all restarts of their cluster.
#[derive(Default)]
pub(crate) struct History {
    /// What was submitted, in order, once each.
    pub(crate) sent: Vec<Transaction>,
    /// What was answered, as often as it was submitted.
    pub(crate) told: BTreeMap<TxId, Vec<Result<Receipt, Error>>>,
    /// What was read.
    pub(crate) sightings: Vec<Sighting>,
    /// The last position that somebody was told of.
    last: Option<Position>,
}

impl History {
    /// Checks all that the clients were told, and what the cluster holds, against the oracle's
    /// replay of the log.
    pub(crate) fn check(&self, house: &House, status: &ClusterStatus) -> Replayed {
        let replayed = Replayed::checking(&house.options, &self.sightings);
        replayed.assert_agrees(status);
        for (id, results) in &self.told {
            check_results(id, results, &replayed);
        }
        let ordered: BTreeSet<TxId> = replayed.receipts.iter().map(|receipt| receipt.id).collect();
        let strange = ordered.iter().find(|id| !self.told.contains_key(id));
        assert_eq!(strange, None, "what nobody submitted is ordered");
        replayed
    }

    /// Submits everything again, and checks that it is answered as before.
    pub(crate) async fn submit_again(&self, running: &Running) {
        let client = running.client().await;
        let results = running.run(&client, self.sent.clone()).await;
        for (transaction, result) in self.sent.iter().zip(results) {
            let id = transaction.content_id();
            match (result, &self.told[&id][0]) {
                (Ok(again), Ok(first)) => assert_eq!(again, *first),
                (Err(Error::Rejected(again)), Err(Error::Rejected(first))) => {
                    assert_eq!(again.code, first.code);
                }
                (again, first) => panic!("{id}: {again:?} now, {first:?} before"),
            }
        }
    }

    /// What was acknowledged before something else was submitted comes before it.
    fn check_real_time(&mut self, results: &[Result<Receipt, Error>]) {
        let positions = results.iter().flatten().map(|receipt| receipt.position);
        let first = positions.clone().min();
        assert!(self.last.is_none_or(|last| first.is_none_or(|first| first > last)));
        self.last = positions.max().or(self.last);
    }
}

/// Whoever submitted a transaction, and however often: all were told the same, which is what the
/// oracle says of it; or all were told that it is late, and it was never ordered.
fn check_results(id: &TxId, results: &[Result<Receipt, Error>], replayed: &Replayed) {
    match replayed.told(id) {
        Some(receipt) => {
            for result in results {
                assert_eq!(result.as_ref(), Ok(&receipt), "{id}");
            }
        }
        None => {
            for result in results {
                let Err(Error::Rejected(rejection)) = result else { panic!("{id}: {result:?}") };
                assert_eq!(rejection.code, ErrorCode::Expired, "{id}");
            }
        }
    }
}

/// Clients at work.
pub(crate) struct Load {
    clients: Vec<Client>,
    /// Most transactions in one submission.
    submission: usize,
    pub(crate) history: History,
}

impl Load {
    /// New clients of a cluster, that go on from a history.
    pub(crate) async fn new(running: &Running, submission: usize, history: History) -> Self {
        Self { clients: running.clients(CLIENTS).await, submission, history }
    }

    /// Submits a round from all clients at once, and waits for every result.
    pub(crate) async fn run(&mut self, running: &Running, round: &[Step]) {
        let now = self.clients[0].status().await.unwrap().ordered;
        let mut lists: Vec<Vec<Transaction>> = vec![Vec::new(); CLIENTS];
        for step in round {
            let transaction = step.transaction(self.history.sent.len() as u128, now);
            self.history.sent.push(transaction.clone());
            lists[step.client].push(transaction.clone());
            lists[step.again.unwrap_or(step.client)].extend(step.again.map(|_| transaction));
        }
        let mut submissions = Vec::new();
        let mut ids = Vec::new();
        while lists.iter().any(|list| !list.is_empty()) {
            for (client, list) in self.clients.iter().zip(&mut lists) {
                let rest = list.split_off(list.len().min(self.submission));
                let part = std::mem::replace(list, rest);
                ids.extend(part.iter().map(Transaction::content_id));
                submissions.push(client.submit(part).await.unwrap());
            }
        }
        let (results, before) = tokio::join!(running.results(submissions), self.look(running));
        let after = self.look(running).await;
        let history = &mut self.history;
        history.check_real_time(&results);
        for (id, result) in ids.into_iter().zip(results) {
            history.told.entry(id).or_default().push(result);
        }
        assert!(history.last.is_none_or(|last| after.iter().all(|s| s.epoch >= last.epoch)));
        history.sightings.extend(before.into_iter().chain(after));
    }

    /// Reads all keys, some times.
    async fn look(&self, running: &Running) -> Vec<Sighting> {
        let keys = all_keys();
        let mut sightings = Vec::new();
        for client in &self.clients {
            let read = running.within(client.read(&keys, ReadAt::Latest)).await;
            let (epoch, values) = read.unwrap();
            let values = keys.iter().cloned().zip(values).collect();
            sightings.push(Sighting { epoch, values });
        }
        sightings
    }
}
