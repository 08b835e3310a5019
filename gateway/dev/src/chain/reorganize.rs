//! Taking blocks back without a snapshot, and making others in their place.

use alloy_primitives::{B256, keccak256};
use parsec_gateway::Refused;

use super::{DevChain, Stop};
use crate::config::Mining;
use crate::transaction::Submission;

impl DevChain {
    /// Takes the latest blocks back, with all that was done since the one before them. What waits
    /// goes on waiting.
    ///
    /// # Errors
    /// Says that there are not so many blocks, or that the state of then is not kept.
    pub fn roll_back(&mut self, blocks: u64) -> Result<(), String> {
        let latest = self.latest();
        let Some(block) = latest.checked_sub(blocks) else {
            return Err(format!("{blocks} blocks can't be taken back: the latest is {latest}"));
        };
        let oldest = self.oldest_state();
        if block < oldest {
            let reason = format!("the state after block {block} is not kept any more");
            return Err(format!("{reason}; the oldest is that of {oldest}"));
        }
        let version = self.marks[usize::try_from(block).unwrap_or(usize::MAX)].version;
        self.rewind(block, version);
        self.snapshots.retain(|_, snapshot| snapshot.version <= version);
        self.revision += 1;
        Ok(())
    }

    /// Makes blocks in the place of such as were taken back, of which the last had the hash
    /// `replaced`. Of each, counted from 0, `of_block` says what is in it, when those before it
    /// are made; what waits is in none of them. Transactions that are refused are left out: the
    /// first refusal is returned.
    ///
    /// # Errors
    /// [`Stop`].
    pub(crate) fn mine_instead<E: From<Refused>>(
        &mut self,
        now: u64,
        replaced: B256,
        blocks: u64,
        mut of_block: impl FnMut(&Self, u64) -> Vec<Result<Submission, E>>,
    ) -> Result<Option<E>, Stop> {
        let pool = std::mem::take(&mut self.pool);
        let mining = std::mem::replace(&mut self.mining, Mining::Manual);
        // Empty blocks of the same time would be those that were there.
        self.set_next_prevrandao(keccak256([&replaced[..], b"reorganized"].concat()));
        let mut refusal = None;
        for index in 0..blocks {
            for transaction in of_block(self, index) {
                let taken = transaction.and_then(|transaction| Ok(self.take(transaction)?));
                refusal = refusal.or_else(|| taken.err());
            }
            self.mine(now)?;
        }
        (self.mining, self.pool) = (mining, pool);
        self.drop_stale();
        Ok(refusal)
    }

    /// Takes what has been done meanwhile out of the pool.
    fn drop_stale(&mut self) {
        let senders: Vec<_> = self.pool.senders().copied().collect();
        for sender in senders {
            let nonce = self.record(&sender).nonce;
            self.pool.remove_of(&sender, Some(nonce));
        }
    }
}
