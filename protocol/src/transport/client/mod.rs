//! Connections between clients and a sequencer.
//!
//! A client opens one bidirectional stream and says [`ClientMessage::Hello`]; the server answers
//! with [`ServerMessage::Welcome`], or with [`ServerMessage::Goodbye`] and closes. After that,
//! both send whatever messages they like. Clients authenticate the server, not the other way
//! round: every byte of a client may be hostile.
//!
//! **Invariant:** what a client makes the server keep is bounded: connections in number; bytes of
//! incomplete frames in time, and in number over all connections; bytes that a client does not
//! read in time. Whoever exceeds a bound hears why, and is closed; nobody else notices.
//!
//! [`ClientMessage::Hello`]: crate::message::ClientMessage::Hello
//! [`ServerMessage::Welcome`]: crate::message::ServerMessage::Welcome
//! [`ServerMessage::Goodbye`]: crate::message::ServerMessage::Goodbye

mod dialer;
mod link;
mod listener;
#[cfg(test)]
mod tests;

pub use dialer::{ClientDialer, DialOptions, ServerConnection, ServerReader, ServerWriter};
pub use listener::{
    ClientConnection, ClientListener, ClientListenerOptions, ClientReader, ClientWriter,
};
