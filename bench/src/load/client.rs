//! Clients as what a load is sent to.

use std::time::Duration;

use parsec_client::{Client, ClientConfig, Error, Submission};
use parsec_protocol::message::ClusterStatus;
use parsec_protocol::{ErrorCode, Transaction, TxId};
use tokio::sync::mpsc;

use super::target::{Answer, Answers, Target};

/// Connects as many clients as a load is to have connections, each configured for it: they leave
/// what a busy cluster refuses to the generator, which sends it again in order.
///
/// # Errors
/// Those of [`Client::connect`].
pub async fn connect(config: &ClientConfig, connections: usize) -> Result<Vec<Client>, Error> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let config = ClientConfig { retry_busy: false, ..config.clone() };
        clients.push(Client::connect(config).await?);
    }
    Ok(clients)
}

/// The answers to one submission of a client.
#[derive(Debug)]
pub struct ClientAnswers {
    submission: Submission,
    accepted: mpsc::Receiver<(usize, TxId)>,
}

impl Target for Client {
    type Answers = ClientAnswers;

    async fn submit(&self, transactions: Vec<Transaction>) -> Result<ClientAnswers, String> {
        let submitted = self.submit_watched(transactions).await;
        let (submission, accepted) = submitted.map_err(|error| error.to_string())?;
        Ok(ClientAnswers { submission, accepted })
    }
}

impl Answers for ClientAnswers {
    async fn next(&mut self) -> Option<(usize, Answer)> {
        let (index, result) = tokio::select! {
            biased;
            Some((index, _)) = self.accepted.recv() => return Some((index, Answer::Accepted)),
            result = self.submission.next() => result?,
        };
        Some((index, result.map_or_else(answer, Answer::Receipt)))
    }
}

/// How often [`settled`] asks.
const SETTLED_EVERY: Duration = Duration::from_millis(5);

/// Waits until nothing is in flight and every partition has applied all that is ordered. Says how
/// the cluster is then.
///
/// # Errors
/// Those of [`Client::status`].
pub async fn settled(client: &Client) -> Result<ClusterStatus, Error> {
    loop {
        let status = client.status().await?;
        let complete = status.partitions.len() == usize::from(status.partitions_total);
        let level = status.partitions.iter().all(|each| each.applied >= status.ordered);
        if complete && level && status.in_flight == 0 {
            return Ok(status);
        }
        tokio::time::sleep(SETTLED_EVERY).await;
    }
}

/// What it means that there is no receipt.
fn answer(error: Error) -> Answer {
    match error {
        Error::Rejected(rejection) => Answer::Rejected {
            code: rejection.code,
            detail: rejection.detail,
            retry_after_ms: rejection
                .retry_after
                .map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
        },
        Error::NotSent { reason } => {
            Answer::Rejected { code: ErrorCode::Unavailable, detail: reason, retry_after_ms: None }
        }
        other => Answer::Unknown { reason: other.to_string() },
    }
}
