//! Messages on their way: ports, links, and what nodes take in.

use parsec_protocol::codec;
use parsec_protocol::message::PeerMessage;

use super::{Effect, Event, Frame, Parcel, SEQUENCER_NODE, Simulation, Stage, Task, Work};

/// Bytes of a frame before its message.
const FRAME_HEADER_BYTES: usize = 4;

/// The network.
impl Simulation<'_> {
    pub(super) fn frame(&self, from: usize, to: usize, parcel: Parcel, bytes: usize) -> Frame {
        let wire_bytes = self.options.link.wire_bytes(bytes + FRAME_HEADER_BYTES);
        Frame { from, to, parcel, wire_bytes }
    }

    pub(super) fn peer_frame(&self, from: usize, to: usize, message: PeerMessage) -> Frame {
        let bytes = codec::encode(&message).len();
        self.frame(from, to, Parcel::Peer(message), bytes)
    }

    pub(super) fn send(&mut self, from: usize, to: usize, parcel: Parcel, bytes: usize) {
        let frame = self.frame(from, to, parcel, bytes);
        self.depart(frame);
    }

    pub(super) fn depart(&mut self, frame: Frame) {
        let port = &mut self.nodes[frame.from].port;
        let at = port.send(&self.options.link, self.now, frame.wire_bytes);
        self.agenda.plan(at, Event::Arrival(Box::new(frame)));
    }

    pub(super) fn depart_all(&mut self, frames: Vec<Frame>) {
        frames.into_iter().for_each(|frame| self.depart(frame));
    }

    pub(super) fn arrive(&mut self, frame: Box<Frame>) {
        let port = &mut self.nodes[frame.to].port;
        let at = port.receive(&self.options.link, self.now, frame.wire_bytes);
        match at > self.now {
            true => self.agenda.plan(at, Event::Delivery(frame)),
            false => self.deliver(*frame),
        }
    }

    pub(super) fn deliver(&mut self, frame: Frame) {
        let node = frame.to;
        self.nodes[node].arrived.push_back(frame);
        self.receive_soon(node);
    }

    pub(super) fn receive_soon(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].receives, true) {
            let stage = match node {
                SEQUENCER_NODE => Stage::Ordering,
                host if host <= self.hosts.len() => Stage::Messages,
                client if client == self.client_node() => Stage::Generator,
                _ => Stage::Admission,
            };
            self.start(node, stage, Task::Receive(node));
        }
    }
}

/// What has arrived.
impl Simulation<'_> {
    pub(super) fn begin_receive(&mut self, node: usize) -> (Work, Effect) {
        let here = &mut self.nodes[node];
        here.receives = false;
        // As many tasks read as there are links, so that all that has arrived gets its turn now.
        let frames: Vec<Frame> = here.arrived.drain(..).collect();
        let transactions = frames.iter().map(|frame| frame.parcel.receipts() as u64).sum();
        // What a gateway spends on messages is part of what admission costs.
        let work = match node > self.client_node() {
            true => Work::default(),
            false => Work { transactions, parts: 0, events: frames.len() as u64 },
        };
        let here = &mut self.nodes[node];
        here.taken += 1;
        (work, Effect::Received(node, here.taken, frames))
    }

    pub(super) fn finish_receive(&mut self, node: usize) {
        loop {
            let here = &mut self.nodes[node];
            let Some(frames) = here.early.remove(&(here.received + 1)) else { break };
            here.received += 1;
            self.take_frames(node, frames);
        }
        match node {
            SEQUENCER_NODE => self.turn(),
            host if host <= self.hosts.len() => self.carry_out(host),
            _ => {}
        }
    }

    pub(super) fn take_frames(&mut self, node: usize, frames: Vec<Frame>) {
        for frame in frames {
            match node {
                SEQUENCER_NODE => self.on_sequencer(frame),
                host if host <= self.hosts.len() => self.on_host(host, frame),
                client if client == self.client_node() => self.on_client(frame.parcel),
                gateway => self.on_gateway(gateway, frame.parcel),
            }
        }
    }

    pub(super) fn on_gateway(&mut self, gateway: usize, parcel: Parcel) {
        if let Parcel::Submission(submission) = parcel {
            self.start(gateway, Stage::Admission, Task::Admit(gateway, Box::new(submission)));
        }
    }
}

impl Parcel {
    /// How many receipts there are in it.
    pub(super) fn receipts(&self) -> usize {
        match self {
            Self::Peer(PeerMessage::Receipts { receipts, .. }) => receipts.len(),
            Self::Receipts(_, receipts) => receipts.len(),
            _ => 0,
        }
    }
}
