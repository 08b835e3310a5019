//! A graph of operations, and of points between them.
//!
//! An edge goes from one operation to another, or through points: from an operation to a point,
//! from point to point any number of times, and from a point to an operation. A point stands for
//! all edges between those that enter it and those that leave it, which would be too many one by
//! one. **Invariant:** no operation reaches itself through points alone.

/// The number of an operation, or of a point; those of points come after the last operation.
pub(crate) type Node = usize;

/// What an edge says of the operation that it leaves and the one that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The one wrote what the other one wrote over.
    WriteWrite,
    /// The one wrote what the other one read.
    WriteRead,
    /// The one read what the other one wrote over.
    ReadWrite,
    /// Their process ran the one before the other.
    Process,
    /// The one returned before the other was invoked.
    RealTime,
    /// What the edge into the point says.
    Through,
}

/// Some kinds of edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    /// These, and edges that leave points.
    pub(crate) fn of(kinds: &[Kind]) -> Self {
        Self(kinds.iter().fold(1 << Kind::Through as u8, |all, kind| all | 1 << *kind as u8))
    }

    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

/// An edge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) kind: Kind,
    /// The number of the key that it is about; 0 if it is about none.
    pub(crate) key: usize,
}

/// A graph that grows.
pub(crate) struct Graph {
    operations: usize,
    nodes: usize,
    edges: Vec<Edge>,
}

impl Graph {
    pub(crate) fn new(operations: usize) -> Self {
        Self { operations, nodes: operations, edges: Vec::new() }
    }

    /// A new point.
    pub(crate) fn point(&mut self) -> Node {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Adds an edge about a key; none from an operation to itself.
    pub(crate) fn add(&mut self, from: Node, to: Node, kind: Kind, key: usize) {
        if from != to {
            self.edges.push(Edge { from, to, kind, key });
        }
    }

    /// Adds an edge that leaves a point.
    pub(crate) fn through(&mut self, point: Node, to: Node) {
        self.add(point, to, Kind::Through, 0);
    }

    /// The graph, in a form in which it can be walked.
    pub(crate) fn finish(self) -> Paths {
        let Self { operations, nodes, mut edges } = self;
        edges.sort_by_key(|edge| edge.from);
        let mut first = vec![0; nodes + 1];
        for edge in &edges {
            first[edge.from + 1] += 1;
        }
        for node in 0..nodes {
            first[node + 1] += first[node];
        }
        Paths { operations, first, edges }
    }
}

/// A graph that can be walked.
pub(crate) struct Paths {
    operations: usize,
    /// For each node, the index of the first edge that leaves it.
    first: Vec<usize>,
    edges: Vec<Edge>,
}

impl Paths {
    pub(crate) fn nodes(&self) -> usize {
        self.first.len() - 1
    }

    pub(crate) fn is_point(&self, node: Node) -> bool {
        node >= self.operations
    }

    pub(crate) fn edge(&self, index: usize) -> Edge {
        self.edges[index]
    }

    /// The edges that leave a node, and the index of the first of them.
    pub(crate) fn leaving(&self, node: Node) -> (usize, &[Edge]) {
        let (from, to) = (self.first[node], self.first[node + 1]);
        (from, &self.edges[from..to])
    }

    /// The strongly connected components that hold a cycle of edges of these kinds: each with its
    /// nodes in order, the smallest first.
    pub(crate) fn components(&self, kinds: Kinds) -> Vec<Vec<Node>> {
        let mut search = Tarjan::new(self, kinds);
        for root in 0..self.nodes() {
            search.visit(root);
        }
        let mut components = search.components;
        components.iter_mut().for_each(|component| component.sort_unstable());
        components.sort_by_key(|component| (component.len(), component[0]));
        components
    }
}

/// Tarjan's algorithm (*Depth-first search and linear graph algorithms*, SIAM Journal on Computing
/// 1972), with a stack of its own: a path may be as long as the history.
struct Tarjan<'a> {
    graph: &'a Paths,
    kinds: Kinds,
    /// When each node was reached, from 1; 0 for those that were not yet.
    reached: Vec<usize>,
    /// The earliest node known to be reachable, of those whose component is not complete.
    low: Vec<usize>,
    complete: Vec<bool>,
    clock: usize,
    /// Nodes whose component is not complete.
    open: Vec<Node>,
    /// The path to the node at hand, and the next edge to follow from each.
    path: Vec<(Node, usize)>,
    components: Vec<Vec<Node>>,
}

impl<'a> Tarjan<'a> {
    fn new(graph: &'a Paths, kinds: Kinds) -> Self {
        let nodes = graph.nodes();
        Self {
            graph,
            kinds,
            reached: vec![0; nodes],
            low: vec![0; nodes],
            complete: vec![false; nodes],
            clock: 0,
            open: Vec::new(),
            path: Vec::new(),
            components: Vec::new(),
        }
    }

    fn visit(&mut self, root: Node) {
        if self.reached[root] == 0 {
            self.enter(root);
        }
        while let Some((node, next)) = self.path.last_mut() {
            let (node, edge) = (*node, *next);
            if edge == self.graph.first[node + 1] {
                self.leave(node);
                continue;
            }
            *next += 1;
            let Edge { to, kind, .. } = self.graph.edges[edge];
            if !self.kinds.has(kind) || self.complete[to] {
                continue;
            }
            if self.reached[to] == 0 {
                self.enter(to);
            } else {
                self.low[node] = self.low[node].min(self.reached[to]);
            }
        }
    }

    fn enter(&mut self, node: Node) {
        self.clock += 1;
        self.reached[node] = self.clock;
        self.low[node] = self.clock;
        self.open.push(node);
        self.path.push((node, self.graph.first[node]));
    }

    fn leave(&mut self, node: Node) {
        self.path.pop();
        if let Some((parent, _)) = self.path.last() {
            self.low[*parent] = self.low[*parent].min(self.low[node]);
        }
        if self.low[node] != self.reached[node] {
            return;
        }
        let begin = self.open.iter().rposition(|open| *open == node).unwrap_or(0);
        let component = self.open.split_off(begin);
        component.iter().for_each(|node| self.complete[*node] = true);
        if component.len() > 1 {
            self.components.push(component);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(Node, Node, Kind)]) -> Paths {
        let mut graph = Graph::new(nodes);
        edges.iter().for_each(|(from, to, kind)| graph.add(*from, *to, *kind, 0));
        graph.finish()
    }

    #[test]
    fn components_are_those_of_the_kinds_that_are_asked_for() {
        use Kind::{ReadWrite, WriteRead, WriteWrite};
        let edges = [
            (0, 1, WriteWrite),
            (1, 2, WriteRead),
            (2, 0, WriteWrite),
            (2, 3, WriteWrite),
            (3, 4, WriteWrite),
            (4, 3, ReadWrite),
            (5, 5, WriteWrite),
        ];
        let graph = graph(6, &edges);
        let components = |kinds: &[Kind]| graph.components(Kinds::of(kinds));
        assert!(components(&[WriteWrite, ReadWrite]) == [[3, 4]]);
        assert!(components(&[WriteWrite, WriteRead]) == [[0, 1, 2]]);
        assert_eq!(components(&[WriteWrite, WriteRead, ReadWrite]), [vec![3, 4], vec![0, 1, 2]]);
        assert!(components(&[WriteWrite]).is_empty());
    }

    #[test]
    fn a_path_may_be_as_long_as_a_history() {
        const NODES: usize = 300_000;
        let mut graph = Graph::new(NODES);
        (0..NODES).for_each(|node| graph.add(node, (node + 1) % NODES, Kind::WriteWrite, 0));
        let components = graph.finish().components(Kinds::of(&[Kind::WriteWrite]));
        assert_eq!(components.iter().map(Vec::len).collect::<Vec<_>>(), [NODES]);
    }
}
