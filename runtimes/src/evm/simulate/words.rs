//! Why a transaction can't be executed, or gave up, in the words that Ethereum's tools know.

use parsec_ethereum::QueryError;
use revm::context::{BlockEnv, TxEnv};
use revm::context_interface::result::{HaltReason, InvalidTransaction, OutOfGasError};

/// Codes of JSON-RPC for what makes a transaction invalid.
const NONCE_TOO_LOW: i32 = -38_010;
const NONCE_TOO_HIGH: i32 = -38_011;
const FEE_TOO_LOW: i32 = -38_012;
const INTRINSIC_GAS: i32 = -38_013;
const INSUFFICIENT_FUNDS: i32 = -38_014;
const BLOCK_GAS_LIMIT: i32 = -38_015;
const SENDER_IS_CONTRACT: i32 = -38_024;
const INIT_CODE_TOO_LONG: i32 = -38_025;
const INVALID_PARAMS: i32 = -32_602;
const INTERNAL: i32 = -32_603;

/// Why a transaction was not executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is invalid, and why, for people.
    Invalid(InvalidTransaction, String),
    /// The question has no answer.
    Query(QueryError),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl Failure {
    /// What to say of a call with that gas limit.
    pub(super) fn of_call(self, gas: u64) -> QueryError {
        match self {
            Self::Invalid(_, reason) => {
                QueryError::Invalid(format!("err: {reason} (supplied gas {gas})"))
            }
            Self::Query(error) => error,
        }
    }

    /// What to say of a transaction of a block, which has been valid once.
    pub(super) fn of_recorded(self) -> QueryError {
        match self {
            Self::Invalid(_, reason) => QueryError::Invalid(format!(
                "a transaction of the block can't be executed again: {reason}"
            )),
            Self::Query(error) => error,
        }
    }

    /// What to say of a call of a simulated block.
    pub(super) fn of_simulated(self, gas: u64) -> QueryError {
        match self {
            Self::Invalid(error, reason) => QueryError::Refused {
                code: code(&error),
                message: format!("err: {reason} (supplied gas {gas})"),
            },
            Self::Query(error) => error,
        }
    }

    /// Whether more gas might help.
    pub(super) fn wants_gas(&self) -> bool {
        use InvalidTransaction::{CallGasCostMoreThanGasLimit, GasFloorMoreThanGasLimit};
        matches!(
            self,
            Self::Invalid(CallGasCostMoreThanGasLimit { .. } | GasFloorMoreThanGasLimit { .. }, _)
        )
    }
}

fn code(error: &InvalidTransaction) -> i32 {
    use InvalidTransaction as I;
    match error {
        I::NonceTooLow { .. } => NONCE_TOO_LOW,
        I::NonceTooHigh { .. } => NONCE_TOO_HIGH,
        I::GasPriceLessThanBasefee => FEE_TOO_LOW,
        I::CallGasCostMoreThanGasLimit { .. } | I::GasFloorMoreThanGasLimit { .. } => INTRINSIC_GAS,
        I::LackOfFundForMaxFee { .. } | I::OverflowPaymentInTransaction => INSUFFICIENT_FUNDS,
        I::CallerGasLimitMoreThanBlock => BLOCK_GAS_LIMIT,
        I::RejectCallerWithCode => SENDER_IS_CONTRACT,
        I::CreateInitCodeSizeLimit => INIT_CODE_TOO_LONG,
        I::PriorityFeeGreaterThanMaxFee => INVALID_PARAMS,
        _ => INTERNAL,
    }
}

/// Why the transaction is invalid.
pub(super) fn invalid(error: &InvalidTransaction, tx: &TxEnv, block: &BlockEnv) -> String {
    use InvalidTransaction as I;
    let caller = tx.caller;
    let max_fee = tx.gas_price;
    match error {
        I::PriorityFeeGreaterThanMaxFee => format!(
            "max priority fee per gas higher than max fee per gas: address {caller}, \
             maxPriorityFeePerGas: {}, maxFeePerGas: {max_fee}",
            tx.gas_priority_fee.unwrap_or_default()
        ),
        I::GasPriceLessThanBasefee => format!(
            "max fee per gas less than block base fee: address {caller}, maxFeePerGas: {max_fee}, \
             baseFee: {}",
            block.basefee
        ),
        I::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        I::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        I::LackOfFundForMaxFee { fee, balance } => format!(
            "insufficient funds for gas * price + value: address {caller} have {balance} want {fee}"
        ),
        I::OverflowPaymentInTransaction => format!(
            "insufficient funds for gas * price + value: address {caller} required balance exceeds \
             256 bits"
        ),
        I::NonceTooHigh { tx, state } => {
            format!("nonce too high: address {caller}, tx: {tx} state: {state}")
        }
        I::NonceTooLow { tx, state } => {
            format!("nonce too low: address {caller}, tx: {tx} state: {state}")
        }
        I::NonceOverflowInTransaction => {
            format!("nonce has max value: address {caller}, nonce: {}", tx.nonce)
        }
        I::TxGasLimitGreaterThanCap { gas_limit, cap } => {
            format!("transaction gas limit too high (cap: {cap}, tx: {gas_limit})")
        }
        error => other(error, tx),
    }
}

fn other(error: &InvalidTransaction, tx: &TxEnv) -> String {
    use InvalidTransaction as I;
    let caller = tx.caller;
    match error {
        I::RejectCallerWithCode => format!("sender not an eoa: address {caller}"),
        I::CallerGasLimitMoreThanBlock => "gas limit reached".to_owned(),
        I::CreateInitCodeSizeLimit => {
            format!("max initcode size exceeded: code size {}", tx.data.len())
        }
        I::InvalidChainId | I::MissingChainId => "invalid chain id for signer".to_owned(),
        I::BlobGasPriceGreaterThanMax { block_blob_gas_price, tx_max_fee_per_blob_gas } => format!(
            "max fee per blob gas less than block blob gas fee: address {caller} blobGasFeeCap: \
             {tx_max_fee_per_blob_gas}, blobBaseFee: {block_blob_gas_price}"
        ),
        I::EmptyBlobs => "blob transaction missing blob hashes".to_owned(),
        I::BlobCreateTransaction => "blob transaction of type create".to_owned(),
        I::TooManyBlobs { max, have } => {
            format!("blob transaction has too many blobs (have {have}, max {max})")
        }
        I::BlobVersionNotSupported => "blob transaction has an invalid hash version".to_owned(),
        I::EmptyAuthorizationList => {
            format!("EIP-7702 transaction with empty auth list (sender {caller})")
        }
        I::Eip2930NotSupported
        | I::Eip1559NotSupported
        | I::Eip4844NotSupported
        | I::Eip7702NotSupported => "transaction type not supported".to_owned(),
        error => error.to_string(),
    }
}

/// Why an execution gave up.
pub(super) fn halted(reason: &HaltReason) -> String {
    use HaltReason as H;
    let known = match reason {
        H::OutOfGas(OutOfGasError::InvalidOperand) => "gas uint64 overflow",
        H::OutOfGas(_) => "out of gas",
        H::OpcodeNotFound | H::NotActivated => "invalid opcode",
        H::InvalidFEOpcode => "invalid opcode: INVALID",
        H::InvalidJump => "invalid jump destination",
        H::StackUnderflow => "stack underflow",
        H::StackOverflow => "stack limit reached 1024 (1023)",
        H::OutOfOffset => "return data out of bounds",
        H::CreateCollision => "contract address collision",
        H::PrecompileError => "precompiled contract failed",
        H::PrecompileErrorWithContext(reason) => return reason.clone(),
        H::NonceOverflow => "nonce uint64 overflow",
        H::CreateContractSizeLimit => "max code size exceeded",
        H::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        H::CreateInitCodeSizeLimit => "max initcode size exceeded",
        H::OverflowPayment | H::OutOfFunds => "insufficient balance for transfer",
        H::StateChangeDuringStaticCall | H::CallNotAllowedInsideStatic => "write protection",
        H::CallTooDeep => "max call depth exceeded",
    };
    known.to_owned()
}
