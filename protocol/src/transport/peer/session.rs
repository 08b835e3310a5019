//! One session of a link: its queues, and the tasks that write and read its streams.

use std::sync::Arc;

use metrics::{Counter, Label};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::super::endpoint;
use super::super::error::{CloseCode, FrameError, LinkError, SendError};
use super::super::frame::{Frame, FrameReader, ReadLimits, write_frames};
use super::inbox::{Gate, Received, Sink};
use super::{Channel, Shared};
use crate::limits::PEER_FRAME_BYTES_MAX;
use crate::message::PeerMessage;
use crate::placement::NodeId;

/// Most messages that are written at once.
const WRITE_MESSAGES_MAX: usize = 256;

/// A link while it is up.
pub(super) struct Session {
    number: u64,
    node: NodeId,
    queues: [Queue; 3],
}

/// Messages that wait to be written to one stream.
struct Queue {
    frames: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    bytes_max: u32,
}

struct Queued {
    frame: Frame,
    /// Room in the queue, given back when the frame is handed to QUIC.
    _room: OwnedSemaphorePermit,
}

impl Session {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a frame; waits while the queue is full.
    pub(super) async fn send(&self, channel: Channel, frame: Frame) -> Result<(), SendError> {
        let queue = &self.queues[channel.index()];
        let bytes = u32::try_from(frame.bytes()).unwrap_or(u32::MAX).min(queue.bytes_max);
        let down = SendError::Down(self.node);
        let Ok(room) = queue.room.clone().acquire_many_owned(bytes).await else {
            return Err(down);
        };
        queue.frames.send(Queued { frame, _room: room }).await.map_err(|_| down)
    }

    /// Lets everybody know who waits for room: there will be none.
    fn shut(&self) {
        self.queues.iter().for_each(|queue| queue.room.close());
    }
}

/// The tasks of a session. Dropping them ends the session.
pub(super) struct Tasks {
    session: Arc<Session>,
    connection: Connection,
    running: JoinSet<LinkError>,
}

/// Starts a session on a connection whose handshake is done.
pub(super) fn start(
    shared: &Shared,
    node: NodeId,
    connection: Connection,
    gate: &Gate,
) -> (Arc<Session>, Tasks) {
    let options = &shared.options;
    let mut running = JoinSet::new();
    let queues = Channel::ALL.map(|channel| {
        let (frames, queued) = mpsc::channel(options.queue_messages);
        running.spawn(write(connection.clone(), channel, queued, Traffic::sent(node, channel)));
        let room = usize::try_from(options.queue_bytes).unwrap_or(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room));
        Queue { frames, room, bytes_max: options.queue_bytes }
    });
    let number = shared.next_session();
    let session = Arc::new(Session { number, node, queues });
    for _ in Channel::ALL {
        let sinks = Channel::ALL.map(|channel| shared.sinks.of(channel));
        running.spawn(read(connection.clone(), node, number, sinks, gate.clone()));
    }
    (session.clone(), Tasks { session, connection, running })
}

impl Tasks {
    /// Returns when the session has ended by itself, with the reason.
    pub(super) async fn ended(&mut self) -> LinkError {
        tokio::select! {
            error = self.connection.closed() => error.into(),
            Some(ended) = self.running.join_next() => match ended {
                // The connection knows better why a stream of it ended.
                Ok(error) => self.connection.close_reason().map_or(error, LinkError::from),
                Err(panic) => LinkError::closed(CloseCode::Malformed, panic.to_string()),
            },
        }
    }

    /// Ends the session. When this returns, nothing of it will arrive any more.
    pub(super) async fn end(mut self, reason: &LinkError) {
        self.session.shut();
        if let LinkError::Closed { code, detail } = reason {
            endpoint::close(&self.connection, *code, detail);
        } else {
            endpoint::close(&self.connection, CloseCode::Shutdown, "the link has ended");
        }
        self.running.shutdown().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Whoever waits for room keeps the session, and so would wait for ever.
        self.session.shut();
    }
}

/// Counts what passes in one direction of one channel.
struct Traffic {
    frames: Counter,
    bytes: Counter,
}

impl Traffic {
    fn sent(node: NodeId, channel: Channel) -> Self {
        let labels = Self::labels(node, channel);
        Self {
            frames: metrics::counter!("parsec_peer_frames_sent_total", labels.iter()),
            bytes: metrics::counter!("parsec_peer_bytes_sent_total", labels.iter()),
        }
    }

    fn received(node: NodeId, channel: Channel) -> Self {
        let labels = Self::labels(node, channel);
        Self {
            frames: metrics::counter!("parsec_peer_frames_received_total", labels.iter()),
            bytes: metrics::counter!("parsec_peer_bytes_received_total", labels.iter()),
        }
    }

    fn labels(node: NodeId, channel: Channel) -> [Label; 2] {
        let channel = Label::from_static_parts("channel", channel.name());
        [Label::new("peer", node.to_string()), channel]
    }

    fn count(&self, frames: usize, bytes: usize) {
        self.frames.increment(frames as u64);
        self.bytes.increment(bytes as u64);
    }
}

/// Writes the queue of one channel to its stream.
async fn write(
    connection: Connection,
    channel: Channel,
    mut queue: mpsc::Receiver<Queued>,
    traffic: Traffic,
) -> LinkError {
    match write_stream(&connection, channel, &mut queue, &traffic).await {
        Ok(()) => super::shutdown(),
        Err(error) => error,
    }
}

async fn write_stream(
    connection: &Connection,
    channel: Channel,
    queue: &mut mpsc::Receiver<Queued>,
    traffic: &Traffic,
) -> Result<(), LinkError> {
    let mut stream: SendStream = connection.open_uni().await?;
    stream.write_all(&[channel.tag()]).await.map_err(LinkError::lost)?;
    let mut ready = Vec::new();
    while queue.recv_many(&mut ready, WRITE_MESSAGES_MAX).await > 0 {
        let bytes: usize = ready.iter().map(|queued| queued.frame.bytes()).sum();
        traffic.count(ready.len(), bytes);
        let (frames, room): (Vec<_>, Vec<_>) =
            ready.drain(..).map(|queued| (queued.frame, queued._room)).unzip();
        write_frames(&mut stream, &frames).await?;
        drop(room);
    }
    Ok(())
}

/// Reads one of the streams that the other side opens, into the inbox of its channel.
async fn read(
    connection: Connection,
    from: NodeId,
    session: u64,
    sinks: [Sink; 3],
    gate: Gate,
) -> LinkError {
    let read = async {
        let mut stream = connection.accept_uni().await?;
        let channel = channel_of(&mut stream).await?;
        gate.opened().await;
        let sink = &sinks[channel.index()];
        let traffic = Traffic::received(from, channel);
        let limits = ReadLimits::of_a_server(PEER_FRAME_BYTES_MAX);
        let mut frames = FrameReader::new(stream, limits);
        while let Some((message, bytes)) = frames.next::<PeerMessage>().await? {
            traffic.count(1, bytes);
            sink.put(Received { from, session, message }, bytes, &gate).await?;
        }
        Ok::<_, FrameError>(())
    };
    match read.await {
        Ok(()) => LinkError::lost("the other side ended a stream"),
        Err(error) => error.into(),
    }
}

/// What a stream carries, by its first byte. That each comes once is up to the other side, which
/// is trusted to be a node of this cluster; the number of streams is limited.
async fn channel_of(stream: &mut RecvStream) -> Result<Channel, FrameError> {
    let mut tag = [0];
    stream.read_exact(&mut tag).await.map_err(LinkError::lost)?;
    let known = Channel::ALL.into_iter().find(|channel| channel.tag() == tag[0]);
    known.ok_or_else(|| {
        let detail = format!("a stream for channel {}", tag[0]);
        LinkError::closed(CloseCode::Malformed, detail).into()
    })
}
