//! Links that go down and come up, as their two ends see them.

use std::collections::{BTreeMap, VecDeque};

use parsec_protocol::NodeId;
use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::Channel;

/// What an end of a link learns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkNews {
    Up { session: u64 },
    Down { session: u64 },
}

/// One end of a link.
#[derive(Default)]
struct End {
    /// The session that this end takes to be up.
    session: Option<u64>,
    /// What it has not learnt of.
    news: VecDeque<LinkNews>,
    /// What is on its way here, in order for each channel.
    arriving: BTreeMap<Channel, VecDeque<PeerMessage>>,
}

/// A message that arrives.
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) session: u64,
    pub(crate) message: PeerMessage,
}

/// All links of a cluster.
pub(crate) struct Network {
    nodes: Vec<NodeId>,
    sessions: u64,
    /// By pair, the lesser node first: the session that is up, if any.
    links: BTreeMap<(NodeId, NodeId), Option<u64>>,
    /// By node and peer.
    ends: BTreeMap<(NodeId, NodeId), End>,
}

impl Network {
    pub(crate) fn new(nodes: Vec<NodeId>) -> Self {
        let pairs = || nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
        Self {
            links: pairs().filter(|(a, b)| a < b).map(|pair| (pair, None)).collect(),
            ends: pairs().filter(|(a, b)| a != b).map(|pair| (pair, End::default())).collect(),
            sessions: 0,
            nodes,
        }
    }

    pub(crate) fn send(
        &mut self,
        from: NodeId,
        to: NodeId,
        session: u64,
        channel: Channel,
        message: PeerMessage,
    ) {
        let link = (from.min(to), from.max(to));
        if self.links[&link] == Some(session) {
            let end = self.ends.get_mut(&(to, from)).unwrap();
            end.arriving.entry(channel).or_default().push_back(message);
        }
    }

    /// Brings a link up if it is down, and both ends know.
    pub(crate) fn connect(&mut self, pick: usize) -> bool {
        let count = self.links.len();
        let Some((&(a, b), link)) = self.links.iter_mut().nth(pick % count.max(1)) else {
            return false;
        };
        let knows = |end: &End| end.session.is_none() && end.news.is_empty();
        if link.is_some() || !knows(&self.ends[&(a, b)]) || !knows(&self.ends[&(b, a)]) {
            return false;
        }
        self.sessions += 1;
        *link = Some(self.sessions);
        for end in [(a, b), (b, a)] {
            let news = LinkNews::Up { session: self.sessions };
            self.ends.get_mut(&end).unwrap().news.push_back(news);
        }
        true
    }

    /// Breaks a link, and loses what is on the way.
    pub(crate) fn disconnect(&mut self, pick: usize) {
        let count = self.links.len().max(1);
        if let Some(pair) = self.links.keys().nth(pick % count).copied() {
            self.break_link(pair);
        }
    }

    fn break_link(&mut self, (a, b): (NodeId, NodeId)) {
        let Some(session) = self.links.get_mut(&(a, b)).unwrap().take() else { return };
        for end in [(a, b), (b, a)] {
            let end = self.ends.get_mut(&end).unwrap();
            end.arriving.clear();
            end.news.push_back(LinkNews::Down { session });
        }
    }

    /// A node has ended, and a new one has begun in its place.
    pub(crate) fn restart(&mut self, node: NodeId) {
        for peer in self.nodes.clone() {
            if peer == node {
                continue;
            }
            self.break_link((node.min(peer), node.max(peer)));
            *self.ends.get_mut(&(node, peer)).unwrap() = End::default();
        }
    }

    /// The next thing that some end learns of a link: node, peer, what.
    pub(crate) fn next_news(&mut self, pick: usize) -> Option<(NodeId, NodeId, LinkNews)> {
        let mut waiting: Vec<_> =
            self.ends.iter_mut().filter(|(_, end)| !end.news.is_empty()).collect();
        let count = waiting.len().max(1);
        let ((node, peer), end) = waiting.get_mut(pick % count)?;
        let news = end.news.pop_front()?;
        end.session = match news {
            LinkNews::Up { session } => Some(session),
            LinkNews::Down { .. } => None,
        };
        Some((*node, *peer, news))
    }

    /// The next message of some channel, at an end that knows of its session.
    pub(crate) fn next_arrival(
        &mut self,
        pick: usize,
        accepts: impl Fn(NodeId, Channel) -> bool,
    ) -> Option<Arrival> {
        let mut queues = Vec::new();
        for ((to, from), end) in &mut self.ends {
            let Some(session) = end.session else { continue };
            for (channel, queue) in &mut end.arriving {
                if !queue.is_empty() && accepts(*to, *channel) {
                    queues.push((*from, *to, session, queue));
                }
            }
        }
        let count = queues.len().max(1);
        let (from, to, session, queue) = queues.get_mut(pick % count)?;
        let message = queue.pop_front()?;
        Some(Arrival { from: *from, to: *to, session: *session, message })
    }
}
