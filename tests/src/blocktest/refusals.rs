//! Whether a block was refused for the reason that a test names.

use parsec_protocol::ErrorCode;
use parsec_runtimes::evm::verify::Reason;

/// Whether a reason is of the kind that an exception names; one of several, if it names several.
pub(super) fn fits(exception: &str, reason: &Reason) -> bool {
    exception.split('|').any(|one| match one.trim().split_once('.') {
        Some(("TransactionException", name)) => is_transaction(name, reason),
        Some(("BlockException", name)) => is_block(name, reason),
        // Older tests name exceptions of other programs: any reason but our own fault will do.
        _ => !matches!(reason, Reason::Broken(_)),
    })
}

fn is_transaction(name: &str, reason: &Reason) -> bool {
    use ErrorCode as E;
    let codes: &[ErrorCode] = match name {
        "INSUFFICIENT_ACCOUNT_FUNDS" => &[E::InsufficientFunds, E::Overflow],
        "GASLIMIT_PRICE_PRODUCT_OVERFLOW" => &[E::InsufficientFunds, E::Overflow, E::Malformed],
        "NONCE_MISMATCH_TOO_LOW" => &[E::NonceTooLow],
        "NONCE_MISMATCH_TOO_HIGH" => &[E::NonceTooHigh],
        "NONCE_IS_MAX" | "NONCE_OVERFLOW" | "NONCE_TOO_BIG" => {
            &[E::Overflow, E::Malformed, E::NonceTooHigh]
        }
        "INTRINSIC_GAS_TOO_LOW" | "INTRINSIC_GAS_BELOW_FLOOR_GAS_COST" => &[E::OutOfWork],
        "INSUFFICIENT_MAX_FEE_PER_GAS" | "INSUFFICIENT_MAX_FEE_PER_BLOB_GAS" => &[E::Underpriced],
        "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS" => &[E::Malformed],
        "GAS_ALLOWANCE_EXCEEDED" | "GAS_LIMIT_EXCEEDS_MAXIMUM" | "INITCODE_SIZE_EXCEEDED" => {
            &[E::TooLarge]
        }
        "SENDER_NOT_EOA" => &[E::NotPermitted],
        "INVALID_CHAINID" => &[E::WrongChain, E::BadSignature],
        "INVALID_SIGNATURE_VRS" | "EC_RECOVERY_FAIL" => &[E::BadSignature, E::Malformed],
        name if name.ends_with("_PRE_FORK") => &[E::Unsupported, E::Malformed],
        // Of each other kind there are several, and what is wrong shows in several ways.
        _ => &[],
    };
    match reason {
        Reason::Transaction { code, .. } => codes.is_empty() || codes.contains(code),
        Reason::Malformed(_) => codes.is_empty(),
        Reason::Header { field, .. } => name.contains("BLOB") && *field == "blob gas used",
        _ => false,
    }
}

fn is_block(name: &str, reason: &Reason) -> bool {
    let of = |fields: &[&str]| {
        matches!(reason, Reason::Header { field, .. } | Reason::Result { field, .. }
            if fields.contains(field))
    };
    let malformed = matches!(reason, Reason::Malformed(_));
    match name {
        "INVALID_STATE_ROOT" => of(&["state root"]),
        "INVALID_RECEIPTS_ROOT" => of(&["receipts root"]),
        "INVALID_TRANSACTIONS_ROOT" => of(&["transactions root"]),
        "INVALID_WITHDRAWALS_ROOT" => of(&["withdrawals root"]),
        "INVALID_LOG_BLOOM" => of(&["logs bloom"]),
        "INVALID_GAS_USED" => of(&["gas used"]),
        "INVALID_REQUESTS" => of(&["requests hash"]),
        "GAS_USED_OVERFLOW" | "INVALID_GAS_USED_ABOVE_LIMIT" => {
            of(&["gas used"]) || is_transaction("GAS_ALLOWANCE_EXCEEDED", reason)
        }
        "INVALID_GASLIMIT" => of(&["gas limit"]),
        "INVALID_BASEFEE_PER_GAS" => of(&["base fee"]),
        "INCORRECT_EXCESS_BLOB_GAS" => of(&["excess blob gas"]),
        "INCORRECT_BLOB_GAS_USED" | "BLOB_GAS_USED_ABOVE_LIMIT" => of(&["blob gas used"]),
        "INVALID_BLOCK_NUMBER" => of(&["number"]),
        "INVALID_BLOCK_TIMESTAMP_OLDER_THAN_PARENT" => of(&["timestamp"]),
        "EXTRA_DATA_TOO_BIG" => of(&["extra data"]),
        "UNKNOWN_PARENT" | "UNKNOWN_PARENT_ZERO" => of(&["parent hash"]),
        "IMPORT_IMPOSSIBLE_UNCLES_OVER_PARIS" => of(&["ommers hash"]),
        "IMPORT_IMPOSSIBLE_DIFFICULTY_OVER_PARIS" => of(&["difficulty"]),
        "SYSTEM_CONTRACT_EMPTY"
        | "SYSTEM_CONTRACT_CALL_FAILED"
        | "INVALID_DEPOSIT_EVENT_LAYOUT" => matches!(reason, Reason::System { .. }),
        "RLP_BLOCK_LIMIT_EXCEEDED" => matches!(reason, Reason::TooLong(_)),
        "RLP_STRUCTURES_ENCODING" | "RLP_WITHDRAWALS_NOT_READ" => malformed,
        "INCORRECT_BLOCK_FORMAT" => malformed || matches!(reason, Reason::Header { .. }),
        _ => !matches!(reason, Reason::Broken(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(field: &'static str) -> Reason {
        Reason::Result { field, expected: String::new(), found: String::new() }
    }

    fn transaction(code: ErrorCode) -> Reason {
        Reason::Transaction { index: 0, code, detail: String::new() }
    }

    #[test]
    fn reasons_are_told_apart() {
        assert!(fits("BlockException.INVALID_STATE_ROOT", &result("state root")));
        assert!(!fits("BlockException.INVALID_STATE_ROOT", &result("gas used")));
        let funds = "TransactionException.INSUFFICIENT_ACCOUNT_FUNDS";
        assert!(fits(funds, &transaction(ErrorCode::InsufficientFunds)));
        assert!(!fits(funds, &transaction(ErrorCode::NonceTooLow)));
        let either = "TransactionException.INTRINSIC_GAS_TOO_LOW|BlockException.INVALID_GAS_USED";
        assert!(fits(either, &transaction(ErrorCode::OutOfWork)));
        assert!(fits(either, &result("gas used")));
        assert!(!fits(either, &result("state root")));
    }

    #[test]
    fn our_own_fault_is_never_the_reason() {
        let broken = Reason::Broken(String::new());
        for name in [
            "BlockException.INVALID_STATE_ROOT",
            "BlockException.SOMETHING_NEW",
            "TransactionException.TYPE_3_TX_ZERO_BLOBS",
            "InvalidBlock",
        ] {
            assert!(!fits(name, &broken), "{name}");
        }
    }
}
