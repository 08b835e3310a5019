//! A gateway over real sockets, in front of a backend that executes nothing.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod client;
mod fake;
mod filters;
mod methods;
mod openrpc;
mod requests;
mod schema;
mod server;
mod subscriptions;
