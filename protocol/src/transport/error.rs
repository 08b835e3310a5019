//! Why endpoints don't start, and why links end.

use std::net::SocketAddr;

use quinn::{ConnectionError, VarInt};

use super::tls::TlsError;
use crate::codec::Malformed;
use crate::message::short;
use crate::placement::NodeId;

/// Why an endpoint could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket could not be opened.
    #[error("cannot open UDP {address}: {source}; choose a free address of this host")]
    Bind {
        /// The address it was to listen on.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Keys or certificates are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration contradicts itself.
    #[error("the network configuration is wrong: {detail}")]
    Config {
        /// What to change.
        detail: String,
    },
}

/// Why a side closed a connection: the application error code of QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCode {
    /// It is shutting down, or has nothing more to say.
    Shutdown,
    /// The other speaks another version of the protocol.
    Version,
    /// The other is of another cluster.
    Cluster,
    /// The other is no member of the cluster.
    UnknownNode,
    /// The other's certificate is for another node than it says it is.
    WrongNode,
    /// Of two nodes, the one with the lower id dials.
    WrongDirection,
    /// A newer link to the same node has taken its place.
    Replaced,
    /// The other sent what is no message, or none that it may send now.
    Malformed,
    /// The other stopped in the middle of a frame, or of the handshake.
    Stalled,
    /// The other did not read what was sent to it.
    Unread,
    /// There are as many connections, or as many bytes under way, as are allowed.
    Full,
    /// A code that this version does not know.
    Other(u32),
}

impl CloseCode {
    const KNOWN: [Self; 11] = [
        Self::Shutdown,
        Self::Version,
        Self::Cluster,
        Self::UnknownNode,
        Self::WrongNode,
        Self::WrongDirection,
        Self::Replaced,
        Self::Malformed,
        Self::Stalled,
        Self::Unread,
        Self::Full,
    ];

    /// The number that goes over the wire. Stable: other versions must understand why they are
    /// refused.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Shutdown => 0,
            Self::Version => 1,
            Self::Cluster => 2,
            Self::UnknownNode => 3,
            Self::WrongNode => 4,
            Self::WrongDirection => 5,
            Self::Replaced => 6,
            Self::Malformed => 7,
            Self::Stalled => 8,
            Self::Unread => 9,
            Self::Full => 10,
            Self::Other(number) => number,
        }
    }

    fn from_wire(number: VarInt) -> Self {
        let number = u32::try_from(number.into_inner()).unwrap_or(u32::MAX);
        Self::KNOWN.into_iter().find(|code| code.number() == number).unwrap_or(Self::Other(number))
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shutdown",
            Self::Version => "other protocol version",
            Self::Cluster => "other cluster",
            Self::UnknownNode => "unknown node",
            Self::WrongNode => "certificate of another node",
            Self::WrongDirection => "the node with the lower id dials",
            Self::Replaced => "replaced by a newer link",
            Self::Malformed => "malformed message",
            Self::Stalled => "stalled",
            Self::Unread => "answers not read",
            Self::Full => "full",
            Self::Other(number) => return write!(f, "code {number}"),
        })
    }
}

/// Why a connection did not come up, or went down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// This side closed it.
    #[error("closed: {code}: {detail}")]
    Closed {
        /// Why.
        code: CloseCode,
        /// Why, for people.
        detail: String,
    },
    /// The other side closed it.
    #[error("closed by the other side: {code}: {detail}")]
    ClosedByPeer {
        /// Why.
        code: CloseCode,
        /// Why, for people.
        detail: String,
    },
    /// One side did not accept the other's certificate.
    #[error("not trusted: {detail}; check both sides' CA and certificates")]
    Untrusted {
        /// What TLS said.
        detail: String,
    },
    /// The other side could not be reached, or fell silent.
    #[error("no connection: {detail}")]
    Lost {
        /// What happened.
        detail: String,
    },
}

impl LinkError {
    pub(super) fn closed(code: CloseCode, detail: impl Into<String>) -> Self {
        Self::Closed { code, detail: short(detail) }
    }

    pub(super) fn lost(detail: impl std::fmt::Display) -> Self {
        Self::Lost { detail: short(detail.to_string()) }
    }

    /// The code, if one of the sides closed the connection on purpose.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed { code, .. } | Self::ClosedByPeer { code, .. } => Some(*code),
            Self::Untrusted { .. } | Self::Lost { .. } => None,
        }
    }
}

/// TLS alerts are the transport error codes from 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

impl From<TransportError> for LinkError {
    fn from(error: TransportError) -> Self {
        Self::lost(error)
    }
}

impl From<ConnectionError> for FrameError {
    fn from(error: ConnectionError) -> Self {
        Self::Link(error.into())
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        let detail = short(error.to_string());
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer {
                code: CloseCode::from_wire(close.error_code),
                detail: short(String::from_utf8_lossy(&close.reason)),
            },
            ConnectionError::TransportError(error) if is_tls_alert(error.code) => {
                Self::Untrusted { detail }
            }
            ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                Self::Untrusted { detail }
            }
            _ => Self::Lost { detail },
        }
    }
}

/// Why bytes of a stream are not the next frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than allowed; nothing was allocated for it.
    #[error("a frame of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// A frame did not become complete in time.
    #[error("a frame was not complete {seconds} s after it began")]
    Stalled {
        /// The time allowed.
        seconds: u64,
    },
    /// All connections together have as many bytes of incomplete frames as are allowed.
    #[error("no room for more incomplete frames; try again later, or with smaller ones")]
    NoRoom,
    /// The connection is gone.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::Link(link) => return link,
            FrameError::TooLong { .. } | FrameError::Malformed(_) | FrameError::Truncated => {
                CloseCode::Malformed
            }
            FrameError::Stalled { .. } => CloseCode::Stalled,
            FrameError::NoRoom => CloseCode::Full,
        };
        Self::closed(code, error.to_string())
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such node was configured, or it is this one.
    #[error("{0} is not among the configured peers")]
    UnknownNode(NodeId),
    /// There is no link to the node now, or not the one that was meant.
    #[error("the link to {0} is down; send again from the last confirmed position when it is up")]
    Down(NodeId),
    /// The message is too long for one frame.
    #[error("a message of {bytes} bytes; at most {bytes_max} are allowed: cut it up")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection is gone, or was closed because the other side did not read.
    #[error(transparent)]
    Link(#[from] LinkError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_come_back_from_the_wire() {
        for code in CloseCode::KNOWN.into_iter().chain([CloseCode::Other(77)]) {
            assert_eq!(CloseCode::from_wire(VarInt::from_u32(code.number())), code);
        }
    }
}
