//! Taking transactions, and refusing those that can't be executed.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use parsec_gateway::Refused;
use parsec_protocol::ErrorCode;
use revm::primitives::hardfork::SpecId;

use super::{DevChain, Output, Stop};
use crate::transaction::{Submission, refused};

impl DevChain {
    /// Takes transactions, in this order; each is refused or gets its hash. If blocks are made at
    /// once, those that can be executed are in one now.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn submit(
        &mut self,
        now: u64,
        transactions: Vec<Result<Submission, Refused>>,
    ) -> Result<Vec<Result<B256, Refused>>, Stop> {
        let mut results: Vec<Result<B256, Refused>> = transactions
            .into_iter()
            .map(|transaction| transaction.and_then(|transaction| self.take(transaction)))
            .collect();
        for (hash, reason) in self.automine(now)? {
            if let Some(result) = results.iter_mut().find(|result| **result == Ok(hash)) {
                *result = Err(reason);
            }
        }
        Ok(results)
    }

    pub(super) fn take(&mut self, transaction: Submission) -> Result<B256, Refused> {
        self.check(&transaction)?;
        let (hash, pooled) = (transaction.hash, Arc::new(transaction.pooled()));
        self.pool.insert(transaction)?;
        self.revision += 1;
        self.outputs.push(Output::Arrived(pooled));
        Ok(hash)
    }

    /// Refuses what can't be executed in the next block nor, as far as can be known, later.
    fn check(&self, transaction: &Submission) -> Result<(), Refused> {
        self.check_chain(transaction)?;
        let record = self.record(&transaction.sender);
        if transaction.nonce < record.nonce {
            return Err(refused(ErrorCode::NonceTooLow, "nonce too low"));
        }
        if transaction.nonce == u64::MAX {
            return Err(refused(ErrorCode::Overflow, "nonce has max value"));
        }
        self.check_gas(transaction)?;
        if transaction.max_tip.is_some_and(|tip| tip > transaction.max_fee) {
            let detail = "max priority fee per gas higher than max fee per gas";
            return Err(refused(ErrorCode::Malformed, detail));
        }
        self.check_fee(transaction)?;
        match transaction.cost() {
            Some(cost) if cost <= record.balance => Ok(()),
            _ => {
                let detail = "Insufficient funds for gas * price + value";
                Err(refused(ErrorCode::InsufficientFunds, detail))
            }
        }
    }

    fn check_chain(&self, transaction: &Submission) -> Result<(), Refused> {
        let since = |fork| self.since(fork);
        let (kind, supported) = match transaction.kind() {
            0 => return self.check_chain_id(transaction),
            1 => (1, since(SpecId::BERLIN)),
            2 => (2, since(SpecId::LONDON)),
            3 => {
                let detail = "transactions of type 3 (EIP-4844) are not accepted: this chain has \
                              no consensus layer that would carry their blobs";
                return Err(refused(ErrorCode::Unsupported, detail));
            }
            kind => (kind, since(SpecId::PRAGUE)),
        };
        if !supported {
            let detail = format!(
                "transaction type {kind} not supported by the hardfork {}",
                self.fork.name()
            );
            return Err(refused(ErrorCode::Unsupported, detail));
        }
        self.check_chain_id(transaction)
    }

    fn check_chain_id(&self, transaction: &Submission) -> Result<(), Refused> {
        match transaction.chain_id {
            Some(id) if id != self.chain_id() => {
                Err(refused(ErrorCode::WrongChain, "invalid chain id for signer"))
            }
            _ => Ok(()),
        }
    }

    fn check_gas(&self, transaction: &Submission) -> Result<(), Refused> {
        let cap = self.config.permits.transaction_gas_max;
        let too_high = |detail| {
            Err(refused(ErrorCode::TooLarge, format!("intrinsic gas too high -- {detail}")))
        };
        if transaction.gas_limit < transaction.least_gas(self.fork.spec) {
            return Err(refused(ErrorCode::OutOfWork, "intrinsic gas too low"));
        }
        if transaction.gas_limit > self.gas_limit {
            return too_high("tx.gas_limit > env.block.gas_limit");
        }
        if cap.is_some_and(|cap| transaction.gas_limit > cap) {
            return too_high("tx.gas_limit > env.cfg.tx_gas_limit_cap");
        }
        Ok(())
    }

    /// Takes a transaction out of the pool.
    pub fn drop_transaction(&mut self, hash: &B256) -> bool {
        self.revision += 1;
        self.pool.remove(hash).is_some()
    }

    /// Takes the transactions of a sender out of the pool, or all.
    pub fn drop_transactions(&mut self, sender: Option<&Address>) {
        self.revision += 1;
        match sender {
            Some(sender) => {
                self.pool.remove_of(sender, None);
            }
            None => self.pool.clear(),
        }
    }
}
