//! What concurrent clients see is strictly serializable: of a calm cluster, of one whose executors
//! crash one by one, and of one whose hosts all crash at once.

mod recorder;

use std::sync::Arc;
use std::time::Duration;

use parsec_client::{Client, Error};
use parsec_history::{Consistency, Failure, Found, Operation, Outcome, Step, Tick, check};
use parsec_protocol::message::ReadAt;
use parsec_protocol::{NodeId, PartitionId, Transaction};
use parsec_tests::{HeldStores, House, Replayed, Running, Shape};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;

use recorder::{Draft, POINTERS, Place, Recorder};

const CLIENTS: usize = 8;
/// Turns of each client; in each it hands over some transactions, or reads a snapshot.
const TURNS: usize = 60;

/// The connections of all clients, while the cluster is up.
type Clients = Option<Arc<Vec<Client>>>;

/// One client, and a generator of numbers that anybody may predict.
struct Worker {
    number: usize,
    random: u64,
    cluster: watch::Receiver<Clients>,
    /// Held by those who listen to the cluster, so that a crash can wait for them to stop.
    listening: Arc<RwLock<()>>,
    recorder: Arc<Recorder>,
    /// How many transactions it has handed over.
    sent: u64,
}

impl Worker {
    fn random(&mut self) -> u64 {
        // Knuth's, of MMIX.
        let random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = random.wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    async fn run(mut self) {
        let pointing = (0..POINTERS).map(|pointer| self.recorder.pointing(pointer));
        self.submit(pointing.collect()).await;
        for _ in 0..TURNS {
            let count = self.random() % 6;
            if count == 0 {
                self.read().await;
                continue;
            }
            let recorder = self.recorder.clone();
            let drafts = (0..count).map(|_| recorder.draft(|| self.random())).collect();
            self.submit(drafts).await;
        }
    }

    /// Hands transactions over, and again when the cluster has crashed, until all have a result.
    async fn submit(&mut self, drafts: Vec<Draft>) {
        let mut open = Vec::new();
        for draft in drafts {
            self.sent += 1;
            let salt = u128::from(self.number as u64) << 64 | u128::from(self.sent);
            let transaction = draft.transaction(salt);
            open.push((draft, transaction));
        }
        let invoked = self.recorder.now();
        while !open.is_empty() {
            let client = self.client().await;
            let listening = self.listening.clone();
            let _listening = listening.read().await;
            let mut cluster = self.cluster.clone();
            tokio::select! {
                biased;
                _ = cluster.wait_for(Option::is_none) => self.recorder.interrupted(),
                () = self.finish(&client, invoked, &mut open) => {}
            }
        }
    }

    /// Takes transactions off the list as their results come.
    async fn finish(&self, client: &Client, invoked: Tick, open: &mut Vec<(Draft, Transaction)>) {
        let handed: Vec<_> = open.iter().map(|(_, transaction)| transaction.clone()).collect();
        let mut submission = client.submit(handed.clone()).await.unwrap();
        while let Some((index, result)) = submission.next().await {
            let place = open.iter().position(|(_, transaction)| *transaction == handed[index]);
            let (draft, _) = open.remove(place.unwrap());
            self.recorder.record(self.number, invoked, &draft, &result);
        }
    }

    /// Reads a snapshot. One that a crash interrupts says nothing.
    async fn read(&mut self) {
        let places = self.recorder.places();
        let keys: Vec<_> = places.iter().map(Place::key).collect();
        let invoked = self.recorder.now();
        let client = self.client().await;
        let _listening = self.listening.read().await;
        let mut cluster = self.cluster.clone();
        tokio::select! {
            biased;
            _ = cluster.wait_for(Option::is_none) => {}
            read = client.read(&keys, ReadAt::Latest) => match read {
                Ok((_, values)) => {
                    self.recorder.record_snapshot(self.number, invoked, &places, &values);
                }
                // A host that is down answers no question.
                Err(error) => assert!(matches!(error, Error::Failed { .. }), "{error}"),
            }
        }
    }

    /// The connection of this client, when the cluster is up.
    async fn client(&self) -> Client {
        let mut cluster = self.cluster.clone();
        let clients = cluster.wait_for(Option::is_some).await.unwrap().clone();
        clients.unwrap()[self.number].clone()
    }
}

/// Clients at work, and the way to tell them where the cluster is.
struct Crowd {
    cluster: watch::Sender<Clients>,
    listening: Arc<RwLock<()>>,
    recorder: Arc<Recorder>,
    workers: JoinSet<()>,
}

impl Crowd {
    /// Clients that wait for a cluster.
    fn new(seed: u64) -> Self {
        let cluster = watch::Sender::new(None);
        let listening = Arc::new(RwLock::new(()));
        let recorder = Arc::new(Recorder::new());
        let mut workers = JoinSet::new();
        for number in 0..CLIENTS {
            let worker = Worker {
                number,
                random: seed << 8 | number as u64,
                cluster: cluster.subscribe(),
                listening: listening.clone(),
                recorder: recorder.clone(),
                sent: 0,
            };
            workers.spawn(worker.run());
        }
        Self { cluster, listening, recorder, workers }
    }

    async fn meet(&self, running: &Running) {
        self.cluster.send_replace(Some(Arc::new(running.clients(CLIENTS).await)));
    }

    /// Returns when nobody listens to the cluster any more.
    async fn part(&self) {
        self.cluster.send_replace(None);
        let _nobody = self.listening.write().await;
    }

    /// Returns when all clients are done.
    async fn finish(&mut self) {
        while let Some(done) = self.workers.join_next().await {
            done.unwrap();
        }
    }

    /// Returns when so many operations are over, or soon, if those that remain have to wait.
    async fn progress(&self, operations: usize) {
        let enough = async {
            while self.recorder.operations() < operations {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), enough).await.ok();
    }

    /// What the clients saw, when all are done.
    fn history(self) -> Vec<Operation> {
        assert!(self.workers.is_empty());
        let Self { recorder, workers, .. } = self;
        drop(workers);
        Arc::into_inner(recorder).expect("all workers are done").history()
    }
}

/// Checks that the history is strictly serializable, and that this says something.
fn check_history(history: &[Operation]) {
    match check(history, Consistency::StrictSerializable) {
        Ok(summary) => println!("{summary:?}"),
        Err(failure) => panic!("{failure}"),
    }
    let count = |outcome| history.iter().filter(|each| each.outcome == outcome).count();
    let (committed, aborted) = (count(Outcome::Committed), count(Outcome::Aborted));
    assert!(committed > CLIENTS * TURNS, "{committed} committed");
    assert!(aborted > 0 && aborted < committed / 4, "{aborted} aborted");
    assert_eq!(committed + aborted, history.len(), "of something nothing is known");
    // Nothing else reads so many keys.
    let snapshots = history.iter().filter(|each| each.steps.len() > 10).count();
    assert!(snapshots > 0, "nobody read a snapshot");
    check_corruptions(history);
}

/// Changes one thing that one client saw, in two ways, and checks that each is found: it read a
/// register as it was before a write that was over when the read began, or a counter without an
/// addition that was.
fn check_corruptions(history: &[Operation]) {
    for is_register in [true, false] {
        let mut history = history.to_vec();
        let (operation, step, found) = stale(&history, is_register).expect("something to change");
        let Step::Read { found: old, .. } = &mut history[operation].steps[step] else {
            unreachable!("a read")
        };
        *old = found;
        match check(&history, Consistency::StrictSerializable) {
            Err(Failure::Anomaly(anomaly)) => {
                assert!(anomaly.operations.contains(&operation), "{anomaly}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A read late in the history, where it is, and what it would have found earlier.
fn stale(history: &[Operation], is_register: bool) -> Option<(usize, usize, Found)> {
    let reads = history.iter().enumerate().rev().flat_map(|(index, operation)| {
        operation.steps.iter().enumerate().map(move |(number, step)| (index, number, step))
    });
    reads.into_iter().find_map(|(index, number, step)| {
        let Step::Read { key, found } = step else { return None };
        let over = history.iter().filter(|each| each.returned < history[index].invoked);
        match found {
            Found::Register(Some(_)) if is_register => {
                let before = |each: &Operation| replaced(each, key, found);
                over.into_iter().find_map(before).map(|found| (index, number, found))
            }
            Found::Set(elements) if !is_register && !elements.is_empty() => {
                let (lost, rest) = elements.split_first()?;
                let add = Step::Add { key: key.clone(), element: *lost };
                let is_over = over.into_iter().any(|each| each.steps.contains(&add));
                is_over.then(|| (index, number, Found::Set(rest.to_vec())))
            }
            _ => None,
        }
    })
}

/// What an operation replaced when it wrote what was found.
fn replaced(operation: &Operation, key: &str, found: &Found) -> Option<Found> {
    let Found::Register(Some(element)) = found else { return None };
    let write = Step::Write { key: key.to_owned(), element: *element };
    let wrote = operation.steps.contains(&write) && operation.outcome == Outcome::Committed;
    let before = operation.steps.iter().find_map(|step| match step {
        Step::Read { key: its, found } if its == key => Some(found.clone()),
        _ => None,
    });
    before.filter(|_| wrote)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_calm_cluster_see_one_order() {
    for (shape, seed) in [(Shape::FOUR, 1), (Shape::new(1, 1, 3), 2), (Shape::new(3, 2, 2), 3)] {
        let house = House::in_memory(shape);
        let running = house.start().await;
        let mut crowd = Crowd::new(seed);
        crowd.meet(&running).await;
        running.within(crowd.finish()).await;
        let status = running.settled().await;
        Replayed::of(&house.options).assert_agrees(&status);
        running.stop().await;
        check_history(&crowd.history());
    }
}

/// Operations between two crashes; then some partitions don't commit any more, and after some more
/// operations they crash.
const CALM: usize = 140;
const HELD: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_cluster_whose_executors_crash_see_one_order() {
    executors_crash_in_turn(House::in_memory(Shape::FOUR)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_cluster_linked_by_memory_whose_executors_crash_see_one_order() {
    executors_crash_in_turn(House::in_memory(Shape::FOUR).linked_by_memory()).await;
}

/// The executors crash in turn, with what their partitions had not committed yet, while all others
/// go on.
async fn executors_crash_in_turn(mut house: House) {
    let stores = HeldStores::default();
    house.options.stores = Some(stores.open());
    let mut running = house.start().await;
    let mut crowd = Crowd::new(5);
    crowd.meet(&running).await;
    for crash in 0..6 {
        let host = crash % 2;
        let partitions = [PartitionId(2 * host), PartitionId(2 * host + 1)];
        crowd.progress((CALM + HELD) * usize::from(crash) + CALM).await;
        stores.hold(&partitions[usize::from(crash % 3 == 0)..]);
        crowd.progress((CALM + HELD) * usize::from(crash + 1)).await;
        stores.crash_alone(&partitions);
        running.cluster.restart_executor(NodeId(1 + host)).await.unwrap();
    }
    running.within(crowd.finish()).await;
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
    check_history(&crowd.history());
}

/// All hosts crash at once, with partitions that were at different epochs, and what the clients
/// have no result for is submitted again.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_cluster_that_crashes_see_one_order() {
    let stores = HeldStores::default();
    let mut house = House::in_memory(Shape::FOUR);
    let mut crowd = Crowd::new(4);
    let mut crashes = 0;
    let running = loop {
        house.options.stores = Some(stores.open());
        let running = house.start().await;
        crowd.meet(&running).await;
        if crashes == 6 {
            running.within(crowd.finish()).await;
            break running;
        }
        crowd.progress((CALM + HELD) * usize::from(crashes) + CALM).await;
        stores.hold(&[PartitionId(crashes % 4), PartitionId((crashes + 1) % 4)]);
        crowd.progress((CALM + HELD) * usize::from(crashes + 1)).await;
        // What nobody listens to any more may be in the image of the log, or not; what somebody
        // heard is, and what the stores hold, too.
        crowd.part().await;
        stores.crash();
        let image = House::over_log_of(&house.options, Shape::FOUR);
        drop(running);
        house = image;
        crashes += 1;
    };
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
    assert!(crowd.recorder.interruptions() > 0, "everything was over when the hosts crashed");
    check_history(&crowd.history());
}
