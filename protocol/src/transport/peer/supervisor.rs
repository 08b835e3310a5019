//! Keeps the link to one node: dials or waits to be dialled, and runs one session at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::error::{CloseCode, LinkError};
use super::handshake;
use super::session::{self, Carrier, Tasks};
use super::{LinkEvent, PeerOptions, Shared, shutdown};
use crate::placement::NodeId;

/// Keeps the link to `node` until the network stops.
pub(super) async fn run(shared: Arc<Shared>, node: NodeId, mut accepted: mpsc::Receiver<Carrier>) {
    let outcome = match shared.node < node {
        true => dial_for_ever(&shared, node, &mut accepted).await,
        false => accept_for_ever(&shared, node, &mut accepted).await,
    };
    let Err(reason) = outcome;
    tracing::debug!(%node, %reason, "the link is not kept any more");
}

/// Nothing: these loops end by an error only.
enum Never {}

async fn accept_for_ever(
    shared: &Shared,
    node: NodeId,
    accepted: &mut mpsc::Receiver<Carrier>,
) -> Result<Never, LinkError> {
    let mut newer = None;
    loop {
        let carrier = match newer.take() {
            Some(carrier) => carrier,
            None => tokio::select! {
                () = shared.closing() => return Err(shutdown()),
                accepted = accepted.recv() => accepted.ok_or_else(shutdown)?,
            },
        };
        newer = run_session(shared, node, carrier, accepted).await?;
    }
}

async fn dial_for_ever(
    shared: &Shared,
    node: NodeId,
    accepted: &mut mpsc::Receiver<Carrier>,
) -> Result<Never, LinkError> {
    let mut backoff = Backoff::new(&shared.options);
    let mut last = None;
    loop {
        let dialled = tokio::select! {
            () = shared.closing() => return Err(shutdown()),
            dialled = dial(shared, node) => dialled,
        };
        match dialled {
            Ok(carrier) => {
                last = None;
                let began = Instant::now();
                run_session(shared, node, carrier, accepted).await?;
                backoff.lasted(began.elapsed());
            }
            Err(reason) => report(shared, node, reason, &mut last),
        }
        tokio::select! {
            () = shared.closing() => return Err(shutdown()),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
        metrics::counter!("parsec_peer_redials_total", "peer" => node.to_string()).increment(1);
    }
}

/// Reaches a node: over the network, unless it runs in this process.
async fn dial(shared: &Shared, node: NodeId) -> Result<Carrier, LinkError> {
    match shared.neighbours.as_ref().filter(|neighbours| neighbours.has(node)) {
        Some(neighbours) => neighbours.dial(shared, node).await.map(Carrier::Memory),
        None => handshake::dial(shared, node).await.map(Carrier::Quic),
    }
}

/// Reports a failure to dial, unless it is the same as the last one.
fn report(shared: &Shared, node: NodeId, reason: LinkError, last: &mut Option<LinkError>) {
    if last.as_ref() == Some(&reason) {
        return;
    }
    let address = shared.peers[&node].address;
    tracing::warn!(from = %shared.node, to = %node, %address, %reason, "cannot link; trying on");
    shared.sinks.announce_failure(LinkEvent::Failed {
        node: Some(node),
        address,
        reason: reason.clone(),
    });
    *last = Some(reason);
}

/// Runs one session from its announcement to its end. Returns what carries the one that replaces
/// it, if that is why it ended; fails when the network stops.
async fn run_session(
    shared: &Shared,
    node: NodeId,
    carrier: Carrier,
    accepted: &mut mpsc::Receiver<Carrier>,
) -> Result<Option<Carrier>, LinkError> {
    let (session, mut tasks, gate) = session::start(shared, node, carrier);
    let number = session.number();
    let peer = &shared.peers[&node];
    // ORDER: whoever learns that the link is up can send on it at once.
    peer.set_session(Some(session));
    let announced = shared.sinks.announce(LinkEvent::Up { node, session: number }, gate.clone());
    let announced = tokio::select! {
        () = shared.closing() => Err(shutdown()),
        announced = announced => announced,
    };
    if let Err(reason) = announced {
        peer.set_session(None);
        return Err(reason);
    }
    tracing::info!(at = %shared.node, %node, session = number, "link up");
    let up = metrics::gauge!("parsec_peer_links_up");
    up.increment(1.0);
    let (reason, newer) = wait_for_end(shared, &mut tasks, accepted).await;
    // ORDER: senders learn of the end first, then the tasks end, then the receiver learns of it:
    // nothing of this session is queued or arrives after its `Down`.
    peer.set_session(None);
    tasks.end(&reason).await;
    up.decrement(1.0);
    tracing::info!(at = %shared.node, %node, session = number, %reason, "link down");
    let stopping = *shared.closing.borrow();
    let down = LinkEvent::Down { node, session: number, reason };
    let announced = shared.sinks.announce(down, gate);
    match stopping {
        // Whoever stopped the network may not receive any more: this must not wait for it.
        true => tokio::time::timeout(Duration::ZERO, announced).await.unwrap_or(Ok(()))?,
        false => tokio::select! {
            () = shared.closing() => return Err(shutdown()),
            announced = announced => announced?,
        },
    }
    if stopping { Err(shutdown()) } else { Ok(newer) }
}

async fn wait_for_end(
    shared: &Shared,
    tasks: &mut Tasks,
    accepted: &mut mpsc::Receiver<Carrier>,
) -> (LinkError, Option<Carrier>) {
    tokio::select! {
        () = shared.closing() => (shutdown(), None),
        Some(newer) = accepted.recv() => {
            let detail = "the same node has dialled again";
            (LinkError::closed(CloseCode::Replaced, detail), Some(newer))
        }
        reason = tasks.ended() => (reason, None),
    }
}

/// Pauses that double, up to a limit.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(options: &PeerOptions) -> Self {
        let (min, max) = (options.backoff_min, options.backoff_max);
        Self { min, max, next: min }
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// A link that lasted was a success; one that fell down at once was not.
    fn lasted(&mut self, time: Duration) {
        if time >= self.max {
            self.next = self.min;
        }
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_link_lasts() {
        let ms = Duration::from_millis;
        let options =
            PeerOptions { backoff_min: ms(20), backoff_max: ms(100), ..PeerOptions::default() };
        let mut backoff = Backoff::new(&options);
        assert_eq!([(); 4].map(|()| backoff.pause()), [ms(20), ms(40), ms(80), ms(100)]);
        backoff.lasted(ms(99));
        assert_eq!(backoff.pause(), ms(100));
        backoff.lasted(ms(100));
        assert_eq!(backoff.pause(), ms(20));
    }
}
