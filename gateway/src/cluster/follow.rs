//! Following a cluster's blocks.

use std::sync::Arc;
use std::time::Duration;

use parsec_client::{Client, Error};
use parsec_ethereum::Block;
use parsec_protocol::codec;

use super::ClusterError;
use super::submitter::Submitter;
use crate::chain::Chain;

/// Most blocks that are asked for at a time.
const BLOCKS_PER_ASK: u32 = 256;
/// How long to wait before asking again for what could not be answered.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Takes over a cluster's blocks as they are sealed.
pub struct Follower {
    client: Client,
    chain: Arc<Chain>,
    submitter: Submitter,
}

/// Block 0 of a cluster, as soon as it is sealed.
pub(super) async fn genesis(client: &Client) -> Result<Block, ClusterError> {
    loop {
        if let Some(block) = client.blocks(0, 1).await?.first() {
            return Ok(codec::decode(block)?);
        }
    }
}

impl Follower {
    pub(super) fn new(client: Client, chain: Arc<Chain>, submitter: Submitter) -> Self {
        Self { client, chain, submitter }
    }

    /// Follows for as long as the cluster's blocks continue those in the index. While the cluster
    /// can't be reached, it tries again.
    ///
    /// # Errors
    /// [`ClusterError::Chain`] if the cluster's blocks are not those of the index, or the index
    /// can't be written; [`ClusterError::Block`]; [`ClusterError::Client`] if the client has
    /// stopped.
    pub async fn run(self) -> Result<std::convert::Infallible, ClusterError> {
        loop {
            let next = self.chain.head().number + 1;
            let encoded = match self.client.blocks(next, BLOCKS_PER_ASK).await {
                Ok(encoded) => encoded,
                Err(Error::Stopped) => return Err(Error::Stopped.into()),
                Err(error) => {
                    tracing::warn!(%error, "blocks can't be followed now");
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            };
            let decoded = encoded.iter().map(|block| codec::decode::<Block>(block));
            let blocks = decoded.collect::<Result<Vec<_>, _>>()?;
            self.append(blocks).await?;
        }
    }

    async fn append(&self, blocks: Vec<Block>) -> Result<(), ClusterError> {
        let (chain, submitter) = (self.chain.clone(), self.submitter.clone());
        let append = move || {
            chain.append_all(&blocks)?;
            // ORDER: a transaction that is not in the pool any more is in the index.
            submitter.on_blocks(&blocks);
            Ok(())
        };
        match tokio::task::spawn_blocking(append).await {
            Ok(appended) => appended,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
