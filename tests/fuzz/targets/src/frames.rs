//! Streams of frames, as they come over a connection.
//!
//! Input: a byte that chooses the kind of message and the longest frame, a byte that chooses the
//! sizes of the pieces in which the stream arrives, then the stream. What the reader gives is
//! compared with what reading the stream at once gives.

use bytes::Bytes;
use parsec_protocol::message::{ClientMessage, PeerMessage, ServerMessage};
use parsec_protocol::transport::FrameError;
use parsec_protocol::transport::fuzzing::{Frames, read_frames};

use crate::encoded::Encoded;
use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "frames", run, seeds };

const HEADER_BYTES: usize = 4;
const LONGEST: [usize; 4] = [0, 32, 512, 1 << 20];

fn run(input: &[u8]) -> Verdict {
    let [choice, pace, stream @ ..] = input else { return Verdict::Refused };
    let bytes_max = LONGEST[usize::from(*choice / 4 % 4)];
    let pieces = || pieces(stream, *pace);
    match choice % 4 {
        0 => {
            check(stream, bytes_max, |room| read_frames::<ServerMessage>(pieces(), bytes_max, room))
        }
        1 => check(stream, bytes_max, |room| read_frames::<PeerMessage>(pieces(), bytes_max, room)),
        _ => {
            check(stream, bytes_max, |room| read_frames::<ClientMessage>(pieces(), bytes_max, room))
        }
    }
}

/// How a stream ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    AfterAFrame,
    Truncated,
    TooLong,
    Malformed,
}

fn check<T: Encoded>(
    stream: &[u8],
    bytes_max: usize,
    read: impl Fn(usize) -> Frames<T>,
) -> Verdict {
    let frames = read(stream.len());
    assert_eq!(frames.room_lost, 0);
    let (expected, end) = read_at_once::<T>(stream, bytes_max);
    let found: Vec<_> =
        frames.messages.iter().map(|(message, length)| (message.encoded(), *length)).collect();
    assert_eq!(found, expected);
    let found = match frames.error {
        None => End::AfterAFrame,
        Some(FrameError::Truncated) => End::Truncated,
        Some(FrameError::TooLong { .. }) => End::TooLong,
        Some(FrameError::Malformed(_)) => End::Malformed,
        Some(other) => panic!("a stream of bytes can't end with {other}"),
    };
    assert_eq!(found, end);

    // With less room some of it is refused; nothing else changes, and the room is given back.
    let cramped = read(stream.len() / 2);
    assert_eq!(cramped.room_lost, 0);
    assert!(cramped.messages.len() <= expected.len());
    if expected.is_empty() { Verdict::Refused } else { Verdict::Accepted }
}

fn read_at_once<T: Encoded>(mut stream: &[u8], bytes_max: usize) -> (Vec<(Vec<u8>, usize)>, End) {
    let mut messages = Vec::new();
    loop {
        let Some((header, rest)) = stream.split_first_chunk::<HEADER_BYTES>() else {
            let end = if stream.is_empty() { End::AfterAFrame } else { End::Truncated };
            return (messages, end);
        };
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap();
        if length > bytes_max {
            return (messages, End::TooLong);
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            return (messages, End::Truncated);
        };
        let Ok(message) = T::decoded(frame) else { return (messages, End::Malformed) };
        messages.push((message.encoded(), HEADER_BYTES + length));
        stream = rest;
    }
}

/// Cuts a stream into pieces of sizes that grow with `pace`, and differ.
fn pieces(mut stream: &[u8], pace: u8) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut turn = usize::from(pace);
    while !stream.is_empty() {
        turn = turn.wrapping_mul(29).wrapping_add(11) % 509;
        let size = (1 + turn * usize::from(pace) / 64).min(stream.len());
        let (piece, rest) = stream.split_at(size);
        pieces.push(Bytes::copy_from_slice(piece));
        stream = rest;
    }
    pieces
}

fn seeds() -> Vec<Seed> {
    let stream = |choice: u8, pace: u8, archives: Vec<Vec<u8>>| {
        let mut bytes = vec![choice, pace];
        for archive in archives {
            bytes.extend_from_slice(&u32::try_from(archive.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&archive);
        }
        bytes
    };
    let server = samples::server_messages().iter().map(|(_, m)| m.encoded()).collect();
    let peer = samples::peer_messages().iter().take(3).map(|(_, m)| m.encoded()).collect();
    let client = samples::client_messages().iter().map(|(_, m)| m.encoded()).collect();
    vec![
        Seed::new("server", stream(12, 3, server)),
        Seed::new("peer", stream(13, 40, peer)),
        Seed::new("client", stream(14, 250, client)),
    ]
}
