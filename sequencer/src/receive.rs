//! What comes from executors about the order: links, progress, receipts.

use std::sync::Arc;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::{Channel, Inbox, LinkEvent, Links, PeerNetwork, Received};
use tokio::sync::mpsc;

use crate::chronicle::Recent;
use crate::driver::{Input, View};
use crate::hosts::Hosts;
use crate::queries::Queries;
use crate::stop::Stop;

/// Takes what executors send.
pub(crate) struct Receiver {
    pub(crate) network: PeerNetwork,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) queries: Queries,
    pub(crate) view: Arc<View>,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Where the chronicle takes receipts from, if there is one.
    pub(crate) recent: Option<Arc<Recent>>,
    pub(crate) stop: Stop,
}

impl Receiver {
    /// Runs until everything is to stop, or the network has.
    ///
    /// Links and messages are taken by one task: what a session says is looked at only after it is
    /// known that the session is up.
    pub(crate) async fn run(self, mut links: Links, mut order: Inbox) {
        loop {
            let going_on = tokio::select! {
                biased;
                _ = self.stop.stopped() => None,
                event = links.recv() => event.map(|event| self.on_link(&event)),
                received = order.recv() => match received {
                    Some(received) => self.on_message(received).await,
                    None => None,
                },
            };
            if going_on.is_none() {
                self.stop.fail("the network of hosts has stopped");
                return;
            }
        }
    }

    fn on_link(&self, event: &LinkEvent) {
        if let LinkEvent::Down { node, .. } = event {
            self.queries.on_down(*node);
        }
        if let Some((host, session, message)) = self.hosts.on_link(event, self.view.settled()) {
            let network = self.network.clone();
            tokio::spawn(async move {
                if let Err(error) = network.send_on(host, session, Channel::Order, &message).await {
                    tracing::debug!(%host, %error, "the link went down again at once");
                }
            });
        }
    }

    /// Takes a message; `None` if there is nobody to hand it to.
    async fn on_message(&self, received: Received) -> Option<()> {
        let Received { from, session, message } = received;
        match message {
            PeerMessage::Progress(statuses) => {
                if let Err(ahead) = self.hosts.on_progress(from, session, &statuses) {
                    self.stop.fail(ahead);
                }
            }
            PeerMessage::Receipts { receipts, .. } => {
                if let Some(recent) = &self.recent {
                    recent.on_receipts(&receipts);
                }
                self.inputs.send(Input::Receipts(receipts)).await.ok()?;
            }
            other => {
                let kind = std::mem::discriminant(&other);
                tracing::warn!(%from, ?kind, "not a message for the order channel to a sequencer");
            }
        }
        Some(())
    }
}

/// Throws away what comes on a channel that a sequencer has no use for.
pub(crate) async fn ignore(mut inbox: Inbox) {
    while let Some(received) = inbox.recv().await {
        tracing::warn!(from = %received.from, "a sequencer takes no part in the exchange");
    }
}
