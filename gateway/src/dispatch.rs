//! From the text of requests to the text of answers.

use std::sync::Arc;
use std::time::Instant;

use alloy_primitives::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::value::RawValue;

use crate::limits::{BATCH_READS_AT_A_TIME, Limits};
use crate::methods::send_all;
use crate::node::Node;
use crate::rpc::{
    Call, METHOD_NOT_FOUND, Message, Methods, Params as _, RESPONSE_TOO_LARGE, Request, RpcError,
    answer, write,
};
use crate::subscriptions::Asked;

/// The method of which consecutive calls in a batch are handed over together.
const SEND: &str = "eth_sendRawTransaction";

type Outcome = Result<Box<RawValue>, RpcError>;

/// Answers requests.
pub(crate) struct Dispatcher {
    node: Arc<Node>,
    methods: Methods,
    /// Whether [`SEND`] is the gateway's own.
    sends: bool,
}

impl Dispatcher {
    pub(crate) fn new(node: Arc<Node>, methods: Methods, sends: bool) -> Self {
        Self { node, methods, sends }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.node.limits
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Answers what a client sent; nothing if it wants no answer. Without a session nothing can
    /// be subscribed to.
    pub(crate) async fn answer(&self, text: &[u8], session: Option<&Asked<'_>>) -> Option<String> {
        match Message::parse(text, self.limits().batch_max) {
            Ok(Message::One(request)) => {
                let outcome = match request.call {
                    Ok(call) => self.call(call, session).await,
                    Err(error) => Err(error),
                };
                Some(answer(&request.id?, &self.limited(outcome)))
            }
            Ok(Message::Batch(requests)) => self.batch(requests, session).await,
            Err(error) => Some(answer(RawValue::NULL, &Err(error))),
        }
    }

    fn limited(&self, outcome: Outcome) -> Outcome {
        let most = self.limits().response_bytes_max;
        match outcome {
            Ok(result) if result.get().len() > most => Err(too_large(most)),
            outcome => outcome,
        }
    }

    /// Answers a batch, in its order. Calls are made one after the other, as if they were sent
    /// so, except that reads don't wait for one another, and transactions that follow each other
    /// are sent together.
    async fn batch(&self, requests: Vec<Request>, session: Option<&Asked<'_>>) -> Option<String> {
        let most = self.limits().response_bytes_max;
        let mut answers = String::from("[");
        let mut requests = requests.into_iter().peekable();
        while let Some(first) = requests.next() {
            let kind = self.kind(&first);
            let mut run = vec![first];
            while kind != Kind::InTurn
                && let Some(next) = requests.next_if(|next| self.kind(next) == kind)
            {
                run.push(next);
            }
            for (id, outcome) in self.run(kind, run, session).await {
                let Some(id) = id else { continue };
                let full = |text: &str| answers.len() + text.len() > most;
                let mut text = answer(&id, &outcome);
                if full(&text) {
                    text = answer(&id, &Err(too_large(most)));
                }
                if answers.len() > 1 {
                    answers.push(',');
                }
                answers.push_str(&text);
            }
        }
        answers.push(']');
        (answers.len() > 2).then_some(answers)
    }

    fn kind(&self, request: &Request) -> Kind {
        match &request.call {
            Ok(call) if call.method == SEND && self.sends => Kind::Send,
            Ok(call) => match self.methods.get(&call.method) {
                Some((_, method)) if method.reads => Kind::Read,
                _ => Kind::InTurn,
            },
            Err(_) => Kind::Read,
        }
    }

    async fn run(
        &self,
        kind: Kind,
        run: Vec<Request>,
        session: Option<&Asked<'_>>,
    ) -> Vec<(Option<Box<RawValue>>, Outcome)> {
        if kind == Kind::Send {
            return self.send(run).await;
        }
        let answering = run.into_iter().map(|request| async move {
            let outcome = match request.call {
                Ok(call) => self.call(call, session).await,
                Err(error) => Err(error),
            };
            (request.id, outcome)
        });
        stream::iter(answering).buffered(BATCH_READS_AT_A_TIME).collect().await
    }

    /// Sends transactions together.
    async fn send(&self, run: Vec<Request>) -> Vec<(Option<Box<RawValue>>, Outcome)> {
        let started = Instant::now();
        let mut raw = Vec::with_capacity(run.len());
        let mut outcomes = Vec::with_capacity(run.len());
        for request in run {
            let params = request.call.and_then(|call| <(Bytes,)>::read(call.params.as_deref()));
            outcomes.push((request.id, params.map(|(transaction,)| raw.push(transaction))));
        }
        let mut sent = send_all(&self.node, raw).await.into_iter();
        let missing = || Err(RpcError::new(crate::rpc::INTERNAL_ERROR, "no answer"));
        let finish = |(id, read): (_, Result<(), RpcError>)| {
            let outcome = read.and_then(|()| write(&sent.next().unwrap_or_else(missing)?));
            measure(SEND, started, &outcome);
            (id, outcome)
        };
        outcomes.into_iter().map(finish).collect()
    }

    /// Answers one call.
    async fn call(&self, call: Call, session: Option<&Asked<'_>>) -> Outcome {
        let started = Instant::now();
        let params = call.params;
        let (name, outcome) = match (&*call.method, session) {
            ("eth_subscribe", Some(session)) => {
                ("eth_subscribe", session.subscribe(params.as_deref()))
            }
            ("eth_unsubscribe", Some(session)) => {
                ("eth_unsubscribe", session.unsubscribe(params.as_deref()))
            }
            ("eth_subscribe" | "eth_unsubscribe", None) => {
                let message = "notifications not supported: subscribe over WebSocket";
                ("eth_subscribe", Err(RpcError::new(METHOD_NOT_FOUND, message)))
            }
            (method, _) => match self.methods.get(method) {
                Some((name, found)) => (name, (found.handler)(params).await),
                None => ("unknown", Err(RpcError::method_not_found(method))),
            },
        };
        measure(name, started, &outcome);
        outcome
    }
}

/// How the calls of a batch may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Send,
    InTurn,
}

fn too_large(most: usize) -> RpcError {
    RpcError::new(RESPONSE_TOO_LARGE, format!("response too large: more than {most} bytes"))
}

fn measure(method: &'static str, started: Instant, outcome: &Outcome) {
    let elapsed = started.elapsed();
    metrics::histogram!("parsec_gateway_request_seconds", "method" => method).record(elapsed);
    let result = match outcome {
        Ok(_) => "ok",
        Err(_) => "error",
    };
    metrics::counter!("parsec_gateway_requests_total", "method" => method, "result" => result)
        .increment(1);
    if let Err(error) = outcome {
        tracing::debug!(method, code = error.code, message = %error.message, "refused");
    }
}
