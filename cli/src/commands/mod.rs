//! What the binary can do, one module for each command.

mod bench;
mod certs;
mod demo;
mod dev;
mod gateway;
mod node;
mod relay;
mod replay;
mod status;
mod submit;
mod usage;

pub use bench::bench;
pub use certs::certs;
pub use demo::demo;
pub use dev::dev;
pub use gateway::{gateway, start as start_gateway};
pub use node::node;
pub use relay::relay;
pub use replay::replay;
pub use status::status;
pub use submit::submit;
pub use usage::usage;
