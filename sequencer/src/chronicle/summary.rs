//! What transactions may ask about the blocks before theirs.

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::{EpochNumber, RuntimeId};
use parsec_runtimes::evm::keys;
use parsec_runtimes::system;
use parsec_sequencer_core::Candidate;
use tokio::sync::mpsc;

use super::blocks::Blocks;
use crate::driver::Input;
use crate::stop::Stop;

/// Tells the driver the hashes of blocks as soon as they are sealed, when it asks.
pub(crate) struct Summarizer {
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) stop: Stop,
}

impl Summarizer {
    /// Runs until nobody can ask any more, or everything is to stop.
    pub(crate) async fn run(self, mut asked: mpsc::Receiver<EpochNumber>) {
        let mut sealed = self.blocks.through();
        while let Some(through) = asked.recv().await {
            let _wanted = self.blocks.want();
            let waiting = sealed.wait_for(|sealed| *sealed >= through);
            let Some(Ok(_)) = self.stop.unless(waiting).await.map(|it| it.map(|_| ())) else {
                return;
            };
            let hashes = self.blocks.hashes().encode();
            let write = match system::summary(through, keys::block_hashes(), hashes) {
                Ok(load) => candidate(load),
                Err(error) => return self.stop.fail(format!("hashes of blocks: {error}")),
            };
            let input = Input::Summary { through, write: Box::new(write) };
            if self.inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

fn candidate(load: system::Load) -> Candidate {
    Candidate {
        id: load.id,
        runtime: RuntimeId::SYSTEM,
        sender: Bytes::new(),
        payload: load.payload,
        footprint: load.footprint,
        expires: None,
        renews: false,
    }
}
