//! JSON-RPC 2.0: requests, parameters, methods, errors.

mod error;
mod message;
mod methods;
mod params;
pub mod quantity;

pub use error::{
    INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, LIMIT_EXCEEDED, METHOD_NOT_FOUND, PARSE_ERROR,
    RESPONSE_TOO_LARGE, REVERTED, RpcError, SERVER_ERROR,
};
pub(crate) use message::{Call, Message, Request, answer};
pub use methods::Methods;
pub(crate) use methods::write;
pub use params::{Count, Json, Param, Params};
pub use quantity::{BlockId, BlockTag};
