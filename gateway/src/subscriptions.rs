//! Subscriptions: what a client over WebSocket is told without asking again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::U128;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::chain::{Change, Past};
use crate::filters::{common, random_id};
use crate::methods::{Criteria, log_changes, pooled, read_criteria};
use crate::node::Node;
use crate::rpc::{Json, Params as _, RpcError, write};
use crate::shape::HeaderJson;

type Outcome = Result<Box<RawValue>, RpcError>;

/// What a client can subscribe to.
enum Subject {
    Heads,
    Logs(Criteria),
    Pending {
        full: bool,
    },
    /// A gateway never falls out of sync, so there is nothing to tell.
    Syncing,
}

/// The subscriptions of a connection.
pub(crate) struct Session {
    node: Arc<Node>,
    outgoing: mpsc::Sender<String>,
    running: Mutex<BTreeMap<u128, AbortHandle>>,
}

/// A message of a client, while it is being answered.
pub(crate) struct Asked<'a> {
    session: &'a Session,
    /// Dropped with the message: what was subscribed to is told of only after the answer that
    /// says so.
    gates: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Session {
    pub(crate) fn new(node: Arc<Node>, outgoing: mpsc::Sender<String>) -> Self {
        Self { node, outgoing, running: Mutex::new(BTreeMap::new()) }
    }

    /// Sends an answer. None are sent any more once the client is gone.
    pub(crate) async fn send(&self, answer: Option<String>) {
        if let Some(answer) = answer {
            // The client may be gone.
            drop(self.outgoing.send(answer).await);
        }
    }
}

impl<'a> Asked<'a> {
    pub(crate) fn new(session: &'a Session) -> Self {
        Self { session, gates: Mutex::new(Vec::new()) }
    }

    /// Begins a subscription.
    pub(crate) fn subscribe(&self, params: Option<&RawValue>) -> Outcome {
        let (kind, details) = <(String, Option<Json<Value>>)>::read(params)?;
        let subject = subject(&kind, details.map(|details| details.0))?;
        let session = self.session;
        let mut running = session.running.lock().unwrap_or_else(PoisonError::into_inner);
        let most = session.node.limits.subscriptions_max;
        if running.len() >= most {
            let message = format!("too many subscriptions on this connection, at most {most}");
            return Err(RpcError::limit(message));
        }
        let id = random_id();
        let (gate, answered) = oneshot::channel();
        let teller = Teller {
            id: U128::from(id),
            node: Arc::clone(&session.node),
            outgoing: session.outgoing.clone(),
            answered,
        };
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).push(gate);
        running.insert(id, teller.start(subject));
        write(&U128::from(id))
    }

    /// Ends a subscription; whether there was one.
    pub(crate) fn unsubscribe(&self, params: Option<&RawValue>) -> Outcome {
        let (id,) = <(alloy_primitives::U256,)>::read(params)?;
        let running = &self.session.running;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let id = u128::try_from(id).ok();
        match id.and_then(|id| running.remove(&id)) {
            Some(subscription) => {
                subscription.abort();
                write(&true)
            }
            None => Err(RpcError::server("subscription not found")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        running.values().for_each(AbortHandle::abort);
    }
}

fn subject(kind: &str, details: Option<Value>) -> Result<Subject, RpcError> {
    match kind {
        "newHeads" => Ok(Subject::Heads),
        "logs" => {
            let empty = Value::Object(serde_json::Map::new());
            let criteria = read_criteria(&details.unwrap_or(empty));
            criteria
                .map(Subject::Logs)
                .map_err(|reason| RpcError::invalid_params(format!("invalid argument 1: {reason}")))
        }
        "newPendingTransactions" => match details {
            None | Some(Value::Null) => Ok(Subject::Pending { full: false }),
            Some(Value::Bool(full)) => Ok(Subject::Pending { full }),
            Some(_) => Err(RpcError::invalid_params("invalid argument 1: expected true or false")),
        },
        "syncing" => Ok(Subject::Syncing),
        _ => {
            let shown: String = kind.chars().take(64).collect();
            let message = format!("no {shown:?} subscription in eth namespace");
            Err(RpcError::new(crate::rpc::METHOD_NOT_FOUND, message))
        }
    }
}

/// Tells a client of what it subscribed to.
struct Teller {
    id: U128,
    node: Arc<Node>,
    outgoing: mpsc::Sender<String>,
    /// Closed when the answer has been sent.
    answered: oneshot::Receiver<()>,
}

#[derive(Serialize)]
struct Notification<'a, T> {
    jsonrpc: &'static str,
    method: &'static str,
    params: NotificationParams<'a, T>,
}

#[derive(Serialize)]
struct NotificationParams<'a, T> {
    subscription: U128,
    result: &'a T,
}

/// The client is gone, or can't be told any more.
struct Gone;

impl Teller {
    fn start(self, subject: Subject) -> AbortHandle {
        // ORDER: listens before the answer is sent, so that nothing after it is missed.
        let task = match subject {
            Subject::Heads => {
                let (seen, changes) = self.listen();
                tokio::spawn(self.heads(seen, changes))
            }
            Subject::Logs(criteria) => {
                let (seen, changes) = self.listen();
                tokio::spawn(self.logs(criteria, seen, changes))
            }
            Subject::Pending { full } => {
                let arrivals = self.node.backend.arrivals();
                tokio::spawn(self.pending(full, arrivals))
            }
            Subject::Syncing => tokio::spawn(std::future::pending()),
        };
        task.abort_handle()
    }

    /// The chain of now, and all that happens to it from now on, but for what both have: that
    /// is no difference to the chain of now.
    fn listen(&self) -> (Arc<Past>, broadcast::Receiver<Change>) {
        let changes = self.node.chain.subscribe();
        (self.node.chain.view().past(), changes)
    }

    async fn tell<T: Serialize>(&self, result: &T) -> Result<(), Gone> {
        let params = NotificationParams { subscription: self.id, result };
        let notification = Notification { jsonrpc: "2.0", method: "eth_subscription", params };
        let text = serde_json::to_string(&notification).map_err(|_| Gone)?;
        self.outgoing.send(text).await.map_err(|_| Gone)
    }

    /// Waits until the answer to the subscription has been sent.
    async fn answered(&mut self) {
        // Nothing is ever sent: the other side is dropped.
        drop((&mut self.answered).await);
    }

    async fn heads(mut self, mut seen: Arc<Past>, mut changes: broadcast::Receiver<Change>) {
        self.answered().await;
        while let Some(now) = self.changed(&mut changes).await {
            let Ok(first) = common(&seen, &now).map(|common| common + 1) else { return };
            for number in first..=now.head().number {
                let Ok(Some(head)) = now.header(number) else { return };
                let header = HeaderJson::new(&head.header, head.hash);
                if self.tell(&header).await.is_err() {
                    return;
                }
            }
            seen = now;
        }
    }

    async fn logs(
        mut self,
        criteria: Criteria,
        mut seen: Arc<Past>,
        mut changes: broadcast::Receiver<Change>,
    ) {
        self.answered().await;
        while let Some(now) = self.changed(&mut changes).await {
            let (wanted, before, after) = (criteria.clone(), Arc::clone(&seen), Arc::clone(&now));
            let found =
                self.node.read(move |node, _| log_changes(node, &wanted, &before, &after)).await;
            let Ok(found) = found else { return };
            for log in found {
                if self.tell(&log).await.is_err() {
                    return;
                }
            }
            seen = now;
        }
    }

    /// The chain after the next change. One who is too slow to be told of each is told of all
    /// that he missed as of one.
    async fn changed(&self, changes: &mut broadcast::Receiver<Change>) -> Option<Arc<Past>> {
        match changes.recv().await {
            Ok(Change::Appended { now, .. } | Change::Rewound { now, .. }) => Some(now),
            Err(RecvError::Lagged(_)) => Some(self.node.chain.view().past()),
            Err(RecvError::Closed) => None,
        }
    }

    async fn pending(
        mut self,
        full: bool,
        mut arrivals: broadcast::Receiver<Arc<parsec_ethereum::PoolTransaction>>,
    ) {
        self.answered().await;
        loop {
            let arrived = match arrivals.recv().await {
                Ok(arrived) => arrived,
                // Those that were missed have left the pool by now.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let told = match full {
                false => self.tell(&arrived.hash).await,
                true => match pooled(&arrived) {
                    Ok(transaction) => self.tell(&transaction).await,
                    Err(_) => Ok(()),
                },
            };
            if told.is_err() {
                return;
            }
        }
    }
}
