//! Bounds the work that a schema can make of one event, before the schema is ever used.
//!
//! A validator follows references and alternatives without counting. A document that refers to itself on the same value
//! overflows its stack; one that judges a member twice at each level takes twice as long for each level of nesting.
//!
//! **Invariant:** of a registry that passed [`check`], each value of an event is judged by at most [`MAX_WORK`] subschemas, and the
//! validator's calls nest at most [`MAX_NESTED`] deep for each document that does not recurse.

use std::collections::{HashMap, HashSet};

use super::Error;
use super::graph::{Graph, Node, NodeId};

/// Most subschemas that judge one value, counted along the way from the event's root to it.
const MAX_WORK: u64 = 4_096;
/// Longest chain of references, alternatives and conditions on one value.
const MAX_CHAIN: usize = 32;
/// Longest chain from a document's root to its deepest part.
const MAX_NESTED: usize = 512;
/// What a chain that comes back to itself is counted as: an event is nested so deep at most.
const RECURSION: u64 = 32;

/// Refuses a registry that could keep the validator busy for long, or overflow its stack.
pub(super) fn check(graph: &Graph<'_>) -> Result<(), Error> {
    let mut bounds = Bounds {
        graph,
        closures: vec![None; graph.nodes.len()],
        open: HashSet::new(),
        components: components(graph),
    };
    for node in 0..graph.nodes.len() {
        bounds.closure(node, 0)?;
    }
    bounds.work()
}

/// How often each node judges a value that this one judges.
type Closure = HashMap<NodeId, u64>;

struct Bounds<'g, 'r> {
    graph: &'g Graph<'r>,
    closures: Vec<Option<(Closure, usize)>>,
    /// On the way to the node looked at.
    open: HashSet<NodeId>,
    components: Components,
}

impl<'r> Bounds<'_, 'r> {
    fn node(&self, id: NodeId) -> Result<&Node<'r>, Error> {
        let missing =
            || Error::Schema { path: "the schemas".to_owned(), message: "a subschema is missing".to_owned() };
        self.graph.nodes.get(id).ok_or_else(missing)
    }

    fn fault<T>(&self, id: NodeId, message: String) -> Result<T, Error> {
        Err(Error::Schema { path: self.node(id)?.place.clone(), message })
    }

    /// Fills in the closure of a node; gives the length of its longest chain.
    fn closure(&mut self, id: NodeId, depth: usize) -> Result<usize, Error> {
        if let Some(Some((_, chain))) = self.closures.get(id) {
            return Ok(*chain);
        }
        if !self.open.insert(id) {
            return self.fault(id, "judges a value by itself: the chain of references never ends".to_owned());
        }
        if depth >= MAX_CHAIN {
            return self
                .fault(id, format!("stands at the end of a chain of more than {MAX_CHAIN} on one value"));
        }
        let node = self.node(id)?;
        let in_place = node.in_place.clone();
        let mut closure = Closure::from([(id, 1)]);
        let mut chain = 0;
        for next in in_place {
            chain = chain.max(self.closure(next, depth + 1)?);
            let inner = self.closures.get(next).and_then(Option::as_ref).map(|(inner, _)| inner);
            for (node, times) in inner.into_iter().flatten() {
                let count = closure.entry(*node).or_default();
                *count = count.saturating_add(*times);
            }
        }
        self.open.remove(&id);
        if closure.values().fold(0, |sum: u64, times| sum.saturating_add(*times)) > MAX_WORK {
            return self.fault(id, format!("judges one value by more than {MAX_WORK} subschemas"));
        }
        if let Some(place) = self.closures.get_mut(id) {
            *place = Some((closure, chain + 1));
        }
        Ok(chain + 1)
    }

    /// Adds up along the ways from roots to leaves; components come in an order in which what is referred to is done before.
    fn work(&self) -> Result<(), Error> {
        let mut done: Vec<(u64, usize)> = vec![(0, 0); self.graph.nodes.len()];
        for (component, nodes) in self.components.nodes.iter().enumerate() {
            let mut most = (0_u64, 0_usize);
            let mut recurses = false;
            for id in nodes {
                let (work, nested, comes_back) = self.work_of(*id, component, &done)?;
                most = (most.0.max(work), most.1.max(nested));
                recurses |= comes_back;
            }
            if recurses {
                most.0 = most.0.saturating_mul(RECURSION);
            }
            for id in nodes {
                if most.0 > MAX_WORK {
                    return self.fault(
                        *id,
                        format!("a value can be judged by more than {MAX_WORK} subschemas below here"),
                    );
                }
                if most.1 > MAX_NESTED {
                    return self
                        .fault(*id, format!("the longest chain of subschemas is longer than {MAX_NESTED}"));
                }
                if let Some(place) = done.get_mut(*id) {
                    *place = most;
                }
            }
        }
        Ok(())
    }

    /// Work and longest chain of a node, and whether its parts can be judged by its own component again.
    fn work_of(
        &self,
        id: NodeId,
        component: usize,
        done: &[(u64, usize)],
    ) -> Result<(u64, usize, bool), Error> {
        let Some(Some((closure, chain))) = self.closures.get(id) else { return Ok((0, 0, false)) };
        let mut own = 0_u64;
        for (node, times) in closure {
            let node = self.node(*node)?;
            let again = node.unevaluated.is_some() || node.items[2].is_some();
            // What stands below is judged once more too, but only once: the validator remembers.
            let factor = if again { 1 + closure.len() as u64 } else { 1 };
            own = own.saturating_add(times.saturating_mul(factor));
        }
        let mut names: HashSet<Option<&str>> = HashSet::from([None]);
        let mut places = 0;
        for node in closure.keys() {
            let node = self.node(*node)?;
            names.extend(node.properties.iter().map(|(name, _)| Some(*name)));
            places = places.max(node.prefix_items.len());
        }
        let mut below = (0_u64, 0_usize);
        let mut recurses = false;
        let members = names.into_iter().map(Step::Member);
        let items = (0..places).map(|place| Step::Item(Some(place)));
        for step in members.chain(items).chain([Step::Item(None), Step::Name]) {
            let (mut work, mut again) = (0_u64, 0_u64);
            for (node, times) in closure {
                for target in step.targets(self.node(*node)?) {
                    if self.components.of.get(target) == Some(&component) {
                        again = again.saturating_add(*times);
                        continue;
                    }
                    let (inner, nested) = done.get(target).copied().unwrap_or_default();
                    work = work.saturating_add(inner.saturating_mul(*times));
                    below.1 = below.1.max(nested);
                }
            }
            if again > 1 {
                let message = "comes back to itself more than once for one part of a value: nested events would take \
                    twice as long with each level";
                return self.fault(id, message.to_owned());
            }
            recurses |= again > 0;
            below.0 = below.0.max(work);
        }
        Ok((own.saturating_add(below.0), chain.saturating_add(below.1), recurses))
    }
}

/// From a value to a part of it.
#[derive(Clone, Copy)]
enum Step<'n> {
    /// A member of that name, or of one that no `properties` has.
    Member(Option<&'n str>),
    /// The item at that place of `prefixItems`, or one behind them.
    Item(Option<usize>),
    Name,
}

impl Step<'_> {
    fn targets(self, node: &Node<'_>) -> Vec<NodeId> {
        match self {
            Self::Member(name) => {
                let named = node.properties.iter().find(|(own, _)| Some(*own) == name).map(|(_, node)| *node);
                let patterns = node.patterns.iter().map(|(_, node)| *node);
                let rest = if named.is_none() { node.additional } else { None };
                named.into_iter().chain(patterns).chain(rest).chain(node.unevaluated).collect()
            }
            Self::Item(place) => {
                let [rest, contains, unevaluated] = node.items;
                let first = place.and_then(|place| node.prefix_items.get(place).copied()).or(rest);
                first.into_iter().chain(contains).chain(unevaluated).collect()
            }
            Self::Name => node.names.into_iter().collect(),
        }
    }
}

/// Groups of nodes that reach each other; those that are reached come first.
struct Components {
    of: Vec<usize>,
    nodes: Vec<Vec<NodeId>>,
}

/// Tarjan's algorithm, without recursion.
fn components(graph: &Graph<'_>) -> Components {
    let targets: Vec<Vec<NodeId>> =
        graph.nodes.iter().map(|node| node.in_place.iter().copied().chain(node.below()).collect()).collect();
    let mut search = Search {
        order: vec![None; targets.len()],
        low: vec![0; targets.len()],
        stack: Vec::new(),
        on_stack: vec![false; targets.len()],
        found: Components { of: vec![usize::MAX; targets.len()], nodes: Vec::new() },
        count: 0,
    };
    for start in 0..targets.len() {
        if search.order.get(start).is_some_and(Option::is_none) {
            search.from(start, &targets);
        }
    }
    search.found
}

struct Search {
    order: Vec<Option<usize>>,
    low: Vec<usize>,
    stack: Vec<NodeId>,
    on_stack: Vec<bool>,
    found: Components,
    count: usize,
}

#[expect(
    clippy::indexing_slicing,
    reason = "each vector has one element a node, and nodes are numbered from 0"
)]
impl Search {
    fn enter(&mut self, node: NodeId) {
        self.order[node] = Some(self.count);
        self.low[node] = self.count;
        self.count += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn from(&mut self, start: NodeId, targets: &[Vec<NodeId>]) {
        let mut way = vec![(start, 0_usize)];
        self.enter(start);
        while let Some((node, next)) = way.last_mut() {
            let node = *node;
            if let Some(target) = targets[node].get(*next) {
                *next += 1;
                match self.order[*target] {
                    None => {
                        self.enter(*target);
                        way.push((*target, 0));
                    }
                    Some(order) if self.on_stack[*target] => self.low[node] = self.low[node].min(order),
                    Some(_) => {}
                }
                continue;
            }
            way.pop();
            if let Some((above, _)) = way.last() {
                self.low[*above] = self.low[*above].min(self.low[node]);
            }
            if Some(self.low[node]) == self.order[node] {
                self.close(node);
            }
        }
    }

    fn close(&mut self, node: NodeId) {
        let mut component = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.on_stack[member] = false;
            self.found.of[member] = self.found.nodes.len();
            component.push(member);
            if member == node {
                break;
            }
        }
        self.found.nodes.push(component);
    }
}
