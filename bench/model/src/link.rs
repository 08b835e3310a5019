//! The network: each node has a port, whose two ways pass so many bytes a second each.

use serde::{Deserialize, Serialize};

use crate::agenda::Nanos;

/// What the ports of all nodes are like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Bits a second, each way; `None` for no limit.
    pub bits_per_second: Option<f64>,
    /// From the last bit at the sender to the last bit at the receiver, microseconds.
    pub latency_us: f64,
    /// Most bytes of messages in one packet.
    pub packet_bytes: u32,
    /// Bytes of headers that come with each packet.
    pub header_bytes: u32,
}

impl Default for Link {
    /// 10 Gbit/s, 0.5 ms, and Ethernet's packets: 1,500 bytes with the headers of IPv4 (20), UDP
    /// (8) and QUIC (some 40 with the authentication tag and a stream's frame); around them Ethernet
    /// adds 38.
    fn default() -> Self {
        Self {
            bits_per_second: Some(1e10),
            latency_us: 500.0,
            packet_bytes: 1_432,
            header_bytes: 106,
        }
    }
}

impl Link {
    /// Bytes that a message takes on the wire.
    #[must_use]
    pub fn wire_bytes(&self, message: usize) -> u64 {
        let message = message as u64;
        message + message.div_ceil(u64::from(self.packet_bytes)) * u64::from(self.header_bytes)
    }

    /// How long so many bytes take to pass a port.
    fn passage(&self, bytes: u64) -> Nanos {
        self.bits_per_second.map_or(0, |bits| nanos(bytes as f64 * 8e9 / bits))
    }

    fn latency(&self) -> Nanos {
        nanos(self.latency_us * 1e3)
    }
}

/// One way of a port.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    free: Nanos,
    bytes: u64,
}

/// The port of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Port {
    out: Way,
    into: Way,
}

impl Port {
    /// Sends so many bytes. Returns when their last bit is at the other port.
    pub(crate) fn send(&mut self, link: &Link, now: Nanos, bytes: u64) -> Nanos {
        self.out.bytes += bytes;
        self.out.free = self.out.free.max(now) + link.passage(bytes);
        self.out.free + link.latency()
    }

    /// The last of so many bytes is there. Returns when they are received: bits of a message come
    /// in while later ones are still on their way, so that it takes longer only if others came in
    /// at the same time.
    pub(crate) fn receive(&mut self, link: &Link, now: Nanos, bytes: u64) -> Nanos {
        self.into.bytes += bytes;
        self.into.free = now.max(self.into.free + link.passage(bytes));
        self.into.free
    }

    /// Bytes sent and received so far.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.out.bytes, self.into.bytes)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in the future")]
fn nanos(nanos: f64) -> Nanos {
    nanos.round().max(0.0) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte a microsecond, and no headers.
    const SLOW: Link =
        Link { bits_per_second: Some(8e6), latency_us: 10.0, packet_bytes: 1_000, header_bytes: 0 };

    #[test]
    fn messages_queue_for_the_senders_port() {
        let mut port = Port::default();
        assert_eq!(port.send(&SLOW, 0, 5), 15_000);
        assert_eq!(port.send(&SLOW, 0, 5), 20_000);
        assert_eq!(port.send(&SLOW, 100_000, 5), 115_000);
        assert_eq!(port.bytes(), (15, 0));
    }

    #[test]
    fn messages_of_several_senders_queue_for_the_receivers_port() {
        let mut port = Port::default();
        assert_eq!(port.receive(&SLOW, 50_000, 5), 50_000, "its bits came in meanwhile");
        assert_eq!(port.receive(&SLOW, 50_000, 5), 55_000);
        assert_eq!(port.receive(&SLOW, 51_000, 5), 60_000);
    }

    #[test]
    fn each_packet_has_headers() {
        let link = Link { packet_bytes: 100, header_bytes: 7, ..SLOW };
        assert_eq!((link.wire_bytes(100), link.wire_bytes(101)), (107, 115));
        let endless = Link { bits_per_second: None, ..link };
        assert_eq!(Port::default().send(&endless, 0, 1 << 40), 10_000);
    }
}
