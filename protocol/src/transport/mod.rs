//! The QUIC transport: links between the hosts of a cluster, and connections of clients.
//!
//! ```text
//!   hosts    PeerListener ─ start ─▶ PeerNetwork (send)
//!                                    PeerInbox (links, order, exchange, query)
//!            ALPN parsec-peer/1, both sides show certificates of the cluster's CA
//!
//!   clients  ClientListener ─ accept ─▶ ClientConnection (recv, send)
//!            ClientDialer ─ connect ─▶ ServerConnection (welcome, reader, writer)
//!            ALPN parsec-client/1, the server shows a certificate
//! ```
//!
//! Everything is a frame ([`codec`](crate::codec) archives with a length before them) on one of a
//! few streams that live as long as their connection. A length is checked before anything is
//! allocated for it, and memory grows with what has arrived, not with what was announced.
//!
//! A connection counts when a hello was answered with one that agrees, not before: a dialler with
//! a certificate that the other side refuses can still connect and write, and learns of it at its
//! first read only. **Invariant:** the two hello messages and the numbers of [`CloseCode`] never
//! change their encoding, so that versions that differ can say so.
//!
//! What is not there, on purpose: early data, session resumption, migration, datagrams, and any
//! way to do without certificates.

mod client;
mod endpoint;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod peer;
pub mod tls;

pub use client::{
    ClientConnection, ClientDialer, ClientListener, ClientListenerOptions, ClientReader,
    ClientWriter, DialOptions, ServerConnection, ServerReader, ServerWriter,
};
pub use error::{CloseCode, FrameError, LinkError, SendError, TransportError};
pub use peer::{
    Channel, Inbox, LinkEvent, Links, Neighbourhood, PeerAddress, PeerConfig, PeerInbox,
    PeerListener, PeerNetwork, PeerOptions, Received, start_peers,
};
