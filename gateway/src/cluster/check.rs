//! What can be said of a transaction before it is ordered.

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, U256};
use bytes::Bytes;
use parsec_ethereum::Account;
use parsec_protocol::ErrorCode;
use tokio::task::JoinHandle;

use crate::Transaction;
use crate::backend::Refused;

/// A transaction, as far as it can be checked against its sender's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) sender: Address,
    nonce: u64,
    /// The most that it may cost its sender, wei.
    cost: U256,
}

impl Signed {
    /// Decodes raw bytes and finds out who signed, on a thread that may be kept busy; `None` if
    /// they are no signed transaction.
    pub(super) fn decode_apart(raw: Bytes) -> JoinHandle<Option<Self>> {
        tokio::task::spawn_blocking(move || Self::decode(&raw))
    }

    fn decode(raw: &[u8]) -> Option<Self> {
        let transaction = Transaction::decode_2718_exact(raw).ok()?;
        let sender = transaction.recover_signer().ok()?;
        let gas = U256::from(transaction.gas_limit());
        let price = U256::from(transaction.max_fee_per_gas());
        let cost = gas.saturating_mul(price).saturating_add(transaction.value());
        Some(Self { sender, nonce: transaction.nonce(), cost })
    }

    /// Checks it against its sender's account, which is then as after it.
    pub(super) fn check(&self, account: &mut Account) -> Result<(), Refused> {
        let refuse = |code, detail| Err(Refused { code, detail, known: None });
        let (next, nonce) = (account.nonce, self.nonce);
        if nonce < next {
            let detail = format!("nonce too low: next nonce {next}, tx nonce {nonce}");
            return refuse(ErrorCode::NonceTooLow, detail);
        }
        if nonce > next {
            let detail = format!(
                "nonce too high: next nonce {next}, tx nonce {nonce}; send the earlier ones first"
            );
            return refuse(ErrorCode::NonceTooHigh, detail);
        }
        if self.cost > account.balance {
            let detail = format!(
                "insufficient funds for gas * price + value: balance {}, tx cost {}, overshot {}",
                account.balance,
                self.cost,
                self.cost - account.balance
            );
            return refuse(ErrorCode::InsufficientFunds, detail);
        }
        account.nonce = next.saturating_add(1);
        account.balance -= self.cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(nonce: u64, cost: u64) -> Signed {
        Signed { sender: Address::ZERO, nonce, cost: U256::from(cost) }
    }

    #[test]
    fn a_transaction_is_checked_behind_those_before_it() {
        let mut account = Account { balance: U256::from(10), nonce: 3, code_hash: None };
        let refusal = |signed: Signed, account: &mut Account| {
            signed.check(account).map_err(|refused| (refused.code, refused.detail))
        };
        let (code, detail) = refusal(signed(2, 0), &mut account).unwrap_err();
        assert_eq!(code, ErrorCode::NonceTooLow);
        assert_eq!(detail, "nonce too low: next nonce 3, tx nonce 2");
        assert_eq!(refusal(signed(3, 6), &mut account), Ok(()));
        assert_eq!(refusal(signed(5, 0), &mut account).unwrap_err().0, ErrorCode::NonceTooHigh);
        let (code, detail) = refusal(signed(4, 5), &mut account).unwrap_err();
        assert_eq!(code, ErrorCode::InsufficientFunds);
        assert!(detail.ends_with("balance 4, tx cost 5, overshot 1"), "{detail}");
        assert_eq!(refusal(signed(4, 4), &mut account), Ok(()));
    }
}
