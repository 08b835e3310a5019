//! A sequencer with real transports, and an executor that runs everything serially.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use parsec_protocol::message::{
    Answer, ClientMessage, ClusterId, PartitionDigest, PartitionStatus, PeerMessage, Query,
    ServerMessage, Verdict, Welcome,
};
use parsec_protocol::transport::tls::CertificateAuthority;
use parsec_protocol::transport::{
    Channel, ClientDialer, ClientListener, ClientListenerOptions, DialOptions, LinkEvent,
    PeerAddress, PeerInbox, PeerListener, PeerNetwork, PeerOptions, ServerConnection,
};
use parsec_protocol::{
    EpochNumber, EpochRecord, HostSlices, Key, LaneId, Namespace, NodeId, Outcome, PartitionId,
    PartitionMap, Position, Receipt, Role, RuntimeId, Slice, Transaction, Value,
};
use parsec_runtimes::system::{Load, SystemRuntime};
use parsec_runtimes::{
    Admitted, Call, Done, Execution, Interrupt, Rejection, Runtime, Runtimes, Session, State,
};
use parsec_sequencer::{Sequencer, SequencerConfig, StartError};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 32]);
pub(crate) const PARTITIONS: u16 = 2;
pub(crate) const IN_FLIGHT_MAX: u32 = 100;
const SEQUENCER: NodeId = NodeId(0);
const HOST: NodeId = NodeId(1);
/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(name: &str) -> Key {
    Key::new(Namespace::partitioned(9), name.as_bytes()).unwrap()
}

/// A runtime whose transactions say what they do: `set KEY VALUE`, or `follow KEY VALUE`, which
/// sets the key that the value of `KEY` names.
struct Pointers;

impl Pointers {
    fn parse(payload: &[u8]) -> Option<(bool, &str, &str)> {
        let mut words = std::str::from_utf8(payload).ok()?.split(' ');
        let follows = match words.next()? {
            "set" => false,
            "follow" => true,
            _ => return None,
        };
        Some((follows, words.next()?, words.next()?))
    }
}

impl Runtime for Pointers {
    fn id(&self) -> RuntimeId {
        RuntimeId::NATIVE
    }

    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection> {
        assert_ne!(&transaction.payload[..], b"panic", "a panic that was asked for");
        match Self::parse(&transaction.payload) {
            Some(_) => {
                Ok(Admitted { id: transaction.content_id(), sender: Bytes::new(), footprint: None })
            }
            None => Err(Rejection::new(parsec_protocol::ErrorCode::Malformed, "no such call")),
        }
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(Self)
    }
}

impl Session for Pointers {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let (follows, name, value) = Self::parse(call.payload).expect("admitted");
        let target = match follows {
            false => key(name),
            true => {
                let pointer = state.get(&key(name))?.unwrap_or_default();
                Key::new(Namespace::partitioned(9), &pointer).unwrap()
            }
        };
        state.put(&target, Some(Value::copy_from_slice(value.as_bytes())))?;
        let output = Bytes::copy_from_slice(target.bytes());
        Ok(Done { outcome: Outcome::Committed, work: 1, output, events: Vec::new() })
    }
}

pub(crate) fn runtimes() -> Runtimes {
    Runtimes::new(vec![Arc::new(SystemRuntime), Arc::new(Pointers)])
}

pub(crate) fn map() -> PartitionMap {
    PartitionMap::even(PARTITIONS).unwrap()
}

/// What an executor has, also while it is down.
#[derive(Default)]
pub(crate) struct HostState {
    pub(crate) values: BTreeMap<Key, Value>,
    pub(crate) receipts: BTreeMap<Position, (PartitionId, Receipt)>,
    pub(crate) applied: EpochNumber,
    slices: BTreeMap<(LaneId, u64), HostSlices>,
    pub(crate) epochs: Vec<EpochRecord>,
    /// Queries that wait for an epoch.
    waiting: VecDeque<(u64, EpochNumber, Vec<Key>)>,
}

impl HostState {
    fn execute(&mut self, record: &EpochRecord) -> Vec<(PartitionId, Receipt)> {
        if record.number <= self.applied {
            return Vec::new();
        }
        assert_eq!(record.number, self.applied.next(), "epochs come in order");
        let mut sessions = runtimes().sessions();
        let mut first = 0;
        let mut receipts = Vec::new();
        for batch in &record.batches {
            let slices = self.slices.remove(&(batch.lane, batch.sequence)).expect("slices first");
            assert_eq!(slices.digest, batch.digest);
            for (index, entry) in homes(&slices.slices) {
                let accesses = entry.footprint.accesses();
                let values: Vec<_> =
                    accesses.iter().map(|access| self.values.get(&access.key).cloned()).collect();
                let entropy = record.digest();
                let index = first + index;
                let done = Execution::run(&mut sessions, &entry, record, &entropy, index, &values)
                    .unwrap();
                for ((access, change), old) in accesses.iter().zip(done.changes).zip(values) {
                    match change.apply(old.as_ref()) {
                        Some(new) => self.values.insert(access.key.clone(), new),
                        None => self.values.remove(&access.key),
                    };
                }
                receipts.push((entry.home, done.receipt));
            }
            first += batch.transactions;
        }
        self.applied = record.number;
        self.epochs.push(record.clone());
        let by_position = receipts.iter().map(|item| (item.1.position, item.clone()));
        self.receipts.extend(by_position);
        receipts
    }

    fn progress(&self) -> PeerMessage {
        let (applied, durable) = (self.applied, self.applied);
        let status = |partition| PartitionStatus { partition, applied, durable };
        PeerMessage::Progress(map().partitions().map(status).collect())
    }

    fn answer(&self, query: Query) -> Answer {
        match query {
            Query::Read { keys, .. } => {
                Answer::Values(keys.iter().map(|key| self.values.get(key).cloned()).collect())
            }
            Query::Receipt { partition, position } => {
                let found = self.receipts.get(&position);
                let of = found.filter(|(home, _)| *home == partition);
                Answer::Receipt(of.map(|(_, receipt)| receipt.clone()))
            }
            Query::Digests => Answer::Digests(
                map()
                    .partitions()
                    .map(|partition| PartitionDigest {
                        partition,
                        applied: self.applied,
                        state: [0; 32],
                        receipts: [0; 32],
                        executed: 0,
                        multi_partition: 0,
                    })
                    .collect(),
            ),
            Query::Outcomes { partition, epochs, after } => {
                let of = |item: &&(PartitionId, Receipt)| {
                    let position = item.1.position;
                    item.0 == partition
                        && epochs.contains(&position.epoch)
                        && after.is_none_or(|after| position > after)
                };
                let receipts = self.receipts.values().filter(of).map(|item| item.1.clone());
                let states = epochs.iter().map(|_| [0; 32]).collect();
                Answer::Outcomes(parsec_protocol::message::Outcomes {
                    states,
                    receipts: receipts.collect(),
                    complete: true,
                })
            }
            Query::States { epochs } => Answer::States(vec![[0; 32]; epochs.len()]),
        }
    }
}

fn homes(slices: &[Slice]) -> BTreeMap<u32, parsec_protocol::Entry> {
    let entries = slices.iter().flat_map(|slice| &slice.entries);
    entries
        .filter_map(|entry| match &entry.role {
            Role::Home { entry: home, .. } => Some((entry.index, (**home).clone())),
            Role::Participant { .. } => None,
        })
        .collect()
}

/// Runs an executor of all partitions until its task is aborted.
async fn run_host(state: Arc<Mutex<HostState>>, network: PeerNetwork, mut inbox: PeerInbox) {
    loop {
        let mut out = Vec::new();
        tokio::select! {
            biased;
            event = inbox.links.recv() => match event {
                Some(LinkEvent::Up { .. }) => out.push((Channel::Order, state.lock().unwrap().progress())),
                Some(_) => {}
                None => return,
            },
            received = inbox.order.recv() => match received {
                Some(received) => on_order(&state, received.message, &mut out),
                None => return,
            },
            received = inbox.query.recv() => match received {
                Some(received) => on_query(&state, received.message, &mut out),
                None => return,
            },
        }
        for (channel, message) in out {
            // The sequencer may be going down.
            network.send(SEQUENCER, channel, &message).await.ok();
        }
    }
}

fn on_order(state: &Mutex<HostState>, message: PeerMessage, out: &mut Vec<(Channel, PeerMessage)>) {
    let mut state = state.lock().unwrap();
    let mut receipts = Vec::new();
    match message {
        PeerMessage::Slices(slices) => {
            state.slices.insert((slices.lane, slices.sequence), slices);
        }
        PeerMessage::Epoch(record) => {
            receipts = state.execute(&record);
            out.push((Channel::Order, state.progress()));
            for (number, epoch, keys) in std::mem::take(&mut state.waiting) {
                answer_read(&mut state, number, epoch, keys, out);
            }
        }
        PeerMessage::ResendReceipts { from } => {
            let again = state.receipts.iter().filter(|(position, _)| position.epoch >= from);
            receipts = again.map(|(_, item)| item.clone()).collect();
        }
        other => panic!("{other:?} is not for an executor"),
    }
    for (partition, receipt) in receipts {
        let message = PeerMessage::Receipts { partition, receipts: vec![receipt.into()] };
        out.push((Channel::Order, message));
    }
}

fn on_query(state: &Mutex<HostState>, message: PeerMessage, out: &mut Vec<(Channel, PeerMessage)>) {
    let mut state = state.lock().unwrap();
    match message {
        PeerMessage::Query { number, query: Query::Read { epoch, keys, .. } } => {
            answer_read(&mut state, number, epoch, keys, out);
        }
        PeerMessage::Query { number, query } => {
            let answer = state.answer(query);
            out.push((Channel::Query, PeerMessage::Answer { number, answer }));
        }
        other => panic!("{other:?} is no query"),
    }
}

fn answer_read(
    state: &mut HostState,
    number: u64,
    epoch: EpochNumber,
    keys: Vec<Key>,
    out: &mut Vec<(Channel, PeerMessage)>,
) {
    if epoch > state.applied {
        state.waiting.push_back((number, epoch, keys));
        return;
    }
    let answer = state.answer(Query::Read { partition: PartitionId(0), epoch, keys });
    out.push((Channel::Query, PeerMessage::Answer { number, answer }));
}

/// A sequencer, its executor, and what survives them.
pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    authority: CertificateAuthority,
    pub(crate) host: Arc<Mutex<HostState>>,
    pub(crate) genesis: Vec<Load>,
}

/// A cluster that runs.
pub(crate) struct Running {
    pub(crate) sequencer: Sequencer,
    host: Option<tokio::task::JoinHandle<()>>,
    pub(crate) address: SocketAddr,
    dialer: ClientDialer,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            authority: CertificateAuthority::new().unwrap(),
            host: Arc::default(),
            genesis: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> SequencerConfig {
        let held = map().partitions().collect();
        let directory: PathBuf = self.directory.path().join("sequencer");
        SequencerConfig {
            genesis: self.genesis.clone(),
            in_flight_max: IN_FLIGHT_MAX,
            workers: 2,
            ..SequencerConfig::new(CLUSTER, map(), vec![(HOST, held)], directory)
        }
    }

    pub(crate) async fn start(&self) -> Running {
        self.try_start(true).await.unwrap()
    }

    /// Starts the sequencer, and the executor if it is to be up.
    pub(crate) async fn try_start(&self, with_host: bool) -> Result<Running, StartError> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let names = ["127.0.0.1".to_owned()];
        let listen = |node| {
            let identity = Arc::new(self.authority.issue(node, &names).unwrap());
            PeerListener::bind(any, identity, PeerOptions::default()).unwrap()
        };
        let (own, host) = (listen(SEQUENCER), listen(HOST));
        let peers = [(SEQUENCER, own.local_address()), (HOST, host.local_address())]
            .map(|(node, address)| PeerAddress { node, address });
        let (network, inbox) = own.start(CLUSTER, &peers).unwrap();
        let host = with_host.then(|| {
            let (network, inbox) = host.start(CLUSTER, &peers).unwrap();
            tokio::spawn(run_host(self.host.clone(), network, inbox))
        });
        let welcome = Welcome {
            version: parsec_protocol::limits::PROTOCOL_VERSION,
            cluster: CLUSTER,
            chain_id: 1,
            in_flight_max: IN_FLIGHT_MAX,
        };
        let identity = self.authority.issue(SEQUENCER, &names).unwrap();
        let options = ClientListenerOptions::default();
        let clients = ClientListener::bind(any, &identity, welcome, options).unwrap();
        let address = clients.local_address();
        let dialer = ClientDialer::new(self.authority.trust().unwrap(), DialOptions::default());
        let sequencer =
            Sequencer::start(self.config(), runtimes(), network, inbox, clients).await?;
        Ok(Running { sequencer, host, address, dialer })
    }
}

impl Running {
    pub(crate) async fn client(&self) -> Client {
        let connection = self.dialer.connect(self.address, "127.0.0.1").await.unwrap();
        Client { connection, requests: 0, seen: VecDeque::new() }
    }

    pub(crate) async fn stop(self) {
        if let Some(host) = self.host {
            host.abort();
        }
        tokio::time::timeout(PATIENCE, self.sequencer.shutdown()).await.unwrap().unwrap();
    }

    /// Stops without any order, as a crash would.
    pub(crate) async fn crash(self) {
        if let Some(host) = self.host {
            host.abort();
        }
        drop(self.sequencer);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A client that sends one thing at a time.
pub(crate) struct Client {
    pub(crate) connection: ServerConnection,
    requests: u64,
    seen: VecDeque<ServerMessage>,
}

pub(crate) fn call(payload: &str, salt: u128) -> Transaction {
    Transaction { salt, ..Transaction::new(RuntimeId::NATIVE, payload.as_bytes().to_vec()) }
}

impl Client {
    pub(crate) async fn send(&mut self, transactions: Vec<Transaction>) -> u64 {
        self.requests += 1;
        let request = self.requests;
        let submit = ClientMessage::Submit { request, transactions };
        self.connection.writer.send(&submit).await.unwrap();
        request
    }

    pub(crate) async fn next(&mut self) -> ServerMessage {
        if let Some(seen) = self.seen.pop_front() {
            return seen;
        }
        let received = tokio::time::timeout(PATIENCE, self.connection.reader.recv()).await;
        received.expect("an answer in time").unwrap().expect("not the end")
    }

    /// The verdicts on a submission, which have to be the next message.
    pub(crate) async fn verdicts(&mut self, request: u64) -> Vec<Verdict> {
        match self.next().await {
            ServerMessage::Verdicts { request: of, verdicts } if of == request => verdicts,
            other => panic!("{other:?} instead of verdicts"),
        }
    }

    /// So many receipts of a submission, by index.
    pub(crate) async fn receipts(
        &mut self,
        request: u64,
        count: usize,
    ) -> BTreeMap<u32, Arc<Receipt>> {
        let mut receipts = BTreeMap::new();
        while receipts.len() < count {
            match self.next().await {
                ServerMessage::Receipts(more) => {
                    for each in more {
                        assert_eq!(each.request, request);
                        assert_eq!(receipts.insert(each.index, each.receipt), None);
                    }
                }
                other => panic!("{other:?} instead of receipts"),
            }
        }
        receipts
    }

    /// Submits, expects all to be accepted, and waits for the receipts.
    pub(crate) async fn submit(
        &mut self,
        transactions: Vec<Transaction>,
    ) -> BTreeMap<u32, Arc<Receipt>> {
        let count = transactions.len();
        let request = self.send(transactions).await;
        let verdicts = self.verdicts(request).await;
        assert!(verdicts.iter().all(|v| matches!(v, Verdict::Accepted(_))), "{verdicts:?}");
        self.receipts(request, count).await
    }
}
