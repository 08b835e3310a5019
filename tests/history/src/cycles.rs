//! The cycle that tells most: of the gravest kind there is, and as short as can be found.

use crate::Consistency;
use crate::graph::{Edge, Kind, Kinds, Node, Paths};
use crate::view::View;

/// How many edges one search may follow before it takes what it can get.
const EDGES_MAX: usize = 20_000_000;

/// One operation of a cycle, and why it comes before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) operation: usize,
    pub(crate) kind: Kind,
    pub(crate) key: usize,
}

/// A cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// The weakest consistency that it violates.
    pub(crate) violates: Consistency,
    /// Begins with the first of its operations. The last one comes before that.
    pub(crate) links: Vec<Link>,
}

/// What edges a cycle may have.
#[derive(Debug, Clone, Copy)]
struct Class {
    kinds: Kinds,
    /// Whether at most one edge may be a [`Kind::ReadWrite`].
    one_read_write: bool,
}

/// The classes of cycles that violate a consistency: G0, G1c, G-single and G2.
fn classes(consistency: Consistency) -> [Class; 4] {
    use Kind::{Process, ReadWrite, RealTime, WriteRead, WriteWrite};
    let orders: &[Kind] = match consistency {
        Consistency::Serializable => &[],
        Consistency::StrongSessionSerializable => &[Process],
        Consistency::StrictSerializable => &[Process, RealTime],
    };
    let class = |data: &[Kind], one_read_write| Class {
        kinds: Kinds::of(&[data, orders].concat()),
        one_read_write,
    };
    let all = [WriteWrite, WriteRead, ReadWrite];
    [class(&all[..1], false), class(&all[..2], false), class(&all, true), class(&all, false)]
}

/// The cycle that is to be told, if there is one that violates `consistency`.
///
/// What contradicts the data alone goes before what contradicts time, and then the gravest class.
pub(crate) fn find(graph: &Paths, view: &View<'_>, consistency: Consistency) -> Option<Cycle> {
    let [.., any] = classes(consistency);
    if graph.components(any.kinds).is_empty() {
        return None;
    }
    for violates in Consistency::ALL {
        let [.., any] = classes(violates);
        if graph.components(any.kinds).is_empty() {
            continue;
        }
        for class in classes(violates) {
            let components = graph.components(class.kinds);
            let mut search = Search::new(graph, view, violates, class, &components);
            let links = components.iter().find_map(|component| search.shortest(component));
            if let Some(mut links) = links {
                let first = (0..links.len()).min_by_key(|place| links[*place].operation);
                links.rotate_left(first.unwrap_or(0));
                return Some(Cycle { violates, links });
            }
        }
    }
    None
}

/// A node, and how many edges of the way to it are a [`Kind::ReadWrite`], as far as that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    node: Node,
    read_writes: usize,
}

/// How a state was reached.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// The number of the walk that reached it last.
    walk: usize,
    edge: usize,
    from: State,
}

/// What came of walking from one operation.
enum Walk {
    Cycle(Vec<Link>),
    /// There is none.
    Nothing,
    /// There is none that is short enough.
    TooLong,
}

/// A search for the shortest cycle within a component.
///
/// Who comes later in time is no step of a walk but only its end: in real time, a shortest cycle
/// has at most one such step. (If *a* returned before *b* was invoked, and *c* before *d*, then *a*
/// returned before *d* was invoked or *c* before *b*, and a shorter cycle does.) The points of time
/// lead to everything that is later, and are walked only if all else fails.
struct Search<'a> {
    graph: &'a Paths,
    view: &'a View<'a>,
    violates: Consistency,
    class: Class,
    /// For each node the first one of its component.
    component_of: Vec<Option<Node>>,
    /// For each state, as [`Search::index`] has it.
    reached: Vec<Reached>,
    walks: usize,
    edges_left: usize,
}

impl<'a> Search<'a> {
    fn new(
        graph: &'a Paths,
        view: &'a View<'a>,
        violates: Consistency,
        class: Class,
        components: &[Vec<Node>],
    ) -> Self {
        let mut component_of = vec![None; graph.nodes()];
        for component in components {
            component.iter().for_each(|node| component_of[*node] = component.first().copied());
        }
        let never = Reached { walk: 0, edge: 0, from: State { node: 0, read_writes: 0 } };
        let reached = vec![never; 2 * graph.nodes()];
        let edges_left = EDGES_MAX;
        Self { graph, view, violates, class, component_of, reached, walks: 0, edges_left }
    }

    /// The shortest cycle of a component, or a short one if the component is very large; `None` if
    /// it has none of the class.
    fn shortest(&mut self, component: &[Node]) -> Option<Vec<Link>> {
        let operations: Vec<Node> =
            component.iter().copied().filter(|node| !self.graph.is_point(*node)).collect();
        let mut length = 2;
        while self.edges_left > 0 {
            let mut too_long = false;
            for start in &operations {
                match self.walk(*start, length, false) {
                    Walk::Cycle(links) => return Some(links),
                    Walk::Nothing => {}
                    Walk::TooLong => too_long = true,
                }
            }
            if !too_long && self.violates == Consistency::Serializable {
                return None;
            }
            if !too_long {
                break;
            }
            length += 1;
        }
        self.any(&operations)
    }

    /// A cycle of any length, through points of time, too.
    fn any(&mut self, operations: &[Node]) -> Option<Vec<Link>> {
        self.edges_left = EDGES_MAX;
        let mut best: Option<Vec<Link>> = None;
        for start in operations {
            if let Walk::Cycle(links) = self.walk(*start, usize::MAX, true)
                && best.as_ref().is_none_or(|best| links.len() < best.len())
            {
                best = Some(links);
            }
            if self.edges_left == 0 {
                break;
            }
        }
        best
    }

    /// Looks for a cycle of at most so many operations from one of them, breadth first.
    fn walk(&mut self, start: Node, length: usize, through_time: bool) -> Walk {
        self.walks += 1;
        let mut at_hand = vec![State { node: start, read_writes: 0 }];
        let mut cost = 0;
        while !at_hand.is_empty() {
            let mut next = Vec::new();
            let mut index = 0;
            while let Some(state) = at_hand.get(index).copied() {
                index += 1;
                let is_point = self.graph.is_point(state.node);
                if !is_point && cost == length {
                    continue;
                }
                if !is_point && cost > 0 && self.violates.orders(self.view, state.node, start) {
                    return Walk::Cycle(self.closed_by_time(start, state));
                }
                let out = if is_point { &mut at_hand } else { &mut next };
                if let Some(links) = self.step(start, state, through_time, out) {
                    return Walk::Cycle(links);
                }
            }
            if cost == length {
                let cut = at_hand.iter().any(|state| !self.graph.is_point(state.node));
                return if cut { Walk::TooLong } else { Walk::Nothing };
            }
            at_hand = next;
            cost += 1;
        }
        Walk::Nothing
    }

    /// Follows the edges that leave a state. Returns the cycle if one leads to the start.
    fn step(
        &mut self,
        start: Node,
        state: State,
        through_time: bool,
        out: &mut Vec<State>,
    ) -> Option<Vec<Link>> {
        let graph = self.graph;
        let (first, edges) = graph.leaving(state.node);
        for (edge, index) in edges.iter().zip(first..) {
            let same = self.component_of[edge.to] == self.component_of[state.node];
            let in_time = matches!(edge.kind, Kind::Process | Kind::RealTime);
            if !same || !self.class.kinds.has(edge.kind) || in_time && !through_time {
                continue;
            }
            self.edges_left = self.edges_left.saturating_sub(1);
            let Some(next) = self.after(state, edge) else { continue };
            if edge.to == start {
                return Some(self.links_to(start, state, Some(*edge)));
            }
            let reached = &mut self.reached[Self::index(next)];
            if reached.walk < self.walks {
                *reached = Reached { walk: self.walks, edge: index, from: state };
                out.push(next);
            }
        }
        None
    }

    /// The state that an edge leads to, if the class allows it.
    fn after(&self, state: State, edge: &Edge) -> Option<State> {
        let counts = self.class.one_read_write && edge.kind == Kind::ReadWrite;
        let read_writes = state.read_writes + usize::from(counts);
        (read_writes <= 1).then_some(State { node: edge.to, read_writes })
    }

    fn index(state: State) -> usize {
        2 * state.node + state.read_writes
    }

    fn closed_by_time(&self, start: Node, last: State) -> Vec<Link> {
        let [before, after] = [last.node, start].map(|node| &self.view.operations[node]);
        let in_real_time =
            before.returned < after.invoked && self.violates == Consistency::StrictSerializable;
        let kind = if in_real_time { Kind::RealTime } else { Kind::Process };
        let mut links = self.links_to(start, last, None);
        links.push(Link { operation: last.node, kind, key: 0 });
        links
    }

    /// The way of this walk to a state, and then along an edge.
    fn links_to(&self, start: Node, last: State, edge: Option<Edge>) -> Vec<Link> {
        let mut edges: Vec<Edge> = edge.into_iter().collect();
        let mut state = last;
        while state.node != start {
            let reached = self.reached[Self::index(state)];
            edges.push(self.graph.edge(reached.edge));
            state = reached.from;
        }
        let of_operations = edges.iter().rev().filter(|edge| !self.graph.is_point(edge.from));
        of_operations
            .map(|edge| Link { operation: edge.from, kind: edge.kind, key: edge.key })
            .collect()
    }
}
