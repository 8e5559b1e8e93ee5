//! Retained messages: the last one of each topic that was published with the RETAIN flag.
//!
//! A tree of levels finds those that match a filter in the order of their topics. Invariants: a node other than the
//! root has a message or a child; `expiries` names exactly the messages that expire.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::event::ChangeNumber;
use crate::message::{Message, Timestamp};
use crate::topic::{Topic, TopicFilter};

/// All retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    /// The nodes; the root is at index 0.
    nodes: Slab<Node>,
    /// When messages expire.
    expiries: BTreeSet<(Timestamp, Topic)>,
    /// How many there are.
    count: usize,
    /// Their weight.
    bytes: usize,
    /// What plugins did that led to them: none rests on a change beyond this one.
    pub(crate) rests_on: ChangeNumber,
}

/// A search under way.
struct Search<'a> {
    /// The levels of the filter.
    levels: &'a [&'a str],
    /// The time, for expiry.
    now: Timestamp,
    /// How many messages are wanted.
    limit: usize,
    /// The messages so far.
    found: Vec<Arc<Message>>,
}

impl Child {
    fn into_message(self) -> Option<Arc<Message>> {
        match self {
            Self::Leaf(message) => Some(message),
            Self::Node(_) => None,
        }
    }
}

impl Search<'_> {
    /// Takes a message that stands `depth` levels below the root, if it is one that is wanted.
    fn offer(&mut self, message: Option<&Arc<Message>>, depth: usize) {
        let ends_here = matches!(self.levels.get(depth), None | Some(&"#"));
        let wanted = message.filter(|message| ends_here && !self.is_full() && !message.is_expired(self.now));
        self.found.extend(wanted.cloned());
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }
}

/// A node of the tree. The level that leads to it is known to the node above alone.
#[derive(Debug, Default)]
struct Node {
    /// What is below, by level.
    children: BTreeMap<Box<str>, Child>,
    /// The message of the topic that ends here.
    message: Option<Arc<Message>>,
}

/// What is below a node.
#[derive(Debug)]
enum Child {
    /// A message, and nothing below it; most are.
    Leaf(Arc<Message>),
    /// A node.
    Node(usize),
}

const ROOT: usize = 0;

impl Retained {
    /// No messages.
    pub(crate) fn new() -> Self {
        let nodes = Slab::from_iter([(ROOT, Node::default())]);
        Self { nodes, expiries: BTreeSet::new(), count: 0, bytes: 0, rests_on: ChangeNumber(0) }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Their weight in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The message of a topic.
    pub(crate) fn find(&self, topic: &Topic) -> Option<&Arc<Message>> {
        let mut levels = topic.levels();
        let mut at = ROOT;
        for level in levels.by_ref() {
            match self.nodes[at].children.get(level)? {
                Child::Leaf(message) => return levels.next().is_none().then_some(message),
                Child::Node(child) => at = *child,
            }
        }
        self.nodes[at].message.as_ref()
    }

    /// Makes this the message of its topic.
    pub(crate) fn insert(&mut self, message: Arc<Message>) {
        if let Some(replaced) = self.place(&message) {
            self.forget(&replaced);
        }
        if let Some(expires_at) = message.expires_at {
            self.expiries.insert((expires_at, message.topic.clone()));
        }
        self.count += 1;
        self.bytes += message.weight();
    }

    /// Puts a message where it belongs, and gives the one that was there.
    fn place(&mut self, message: &Arc<Message>) -> Option<Arc<Message>> {
        let mut levels = message.topic.levels().peekable();
        let mut at = ROOT;
        while let Some(level) = levels.next() {
            if levels.peek().is_some() {
                at = self.node_below(at, level);
                continue;
            }
            let children = &mut self.nodes[at].children;
            return match children.get_mut(level) {
                None => {
                    children.insert(level.into(), Child::Leaf(message.clone()));
                    None
                }
                Some(Child::Leaf(leaf)) => Some(std::mem::replace(leaf, message.clone())),
                Some(&mut Child::Node(node)) => self.nodes[node].message.replace(message.clone()),
            };
        }
        None
    }

    /// The node below another; made where there is none, or a message alone.
    fn node_below(&mut self, at: usize, level: &str) -> usize {
        let leaf = match self.nodes[at].children.get(level) {
            Some(&Child::Node(child)) => return child,
            Some(Child::Leaf(message)) => Some(message.clone()),
            None => None,
        };
        let child = self.nodes.insert(Node { children: BTreeMap::new(), message: leaf });
        self.nodes[at].children.insert(level.into(), Child::Node(child));
        child
    }

    /// Removes the message of a topic.
    pub(crate) fn remove(&mut self, topic: &Topic) -> Option<Arc<Message>> {
        let mut path: SmallVec<[(usize, &str); 16]> = SmallVec::new();
        let mut at = ROOT;
        let mut levels = topic.levels().peekable();
        let mut removed = None;
        while let Some(level) = levels.next() {
            path.push((at, level));
            match self.nodes[at].children.get(level)? {
                Child::Node(child) => at = *child,
                Child::Leaf(_) if levels.peek().is_some() => return None,
                Child::Leaf(_) => {
                    let leaf = self.nodes[at].children.remove(level)?;
                    path.pop();
                    removed = leaf.into_message();
                }
            }
        }
        let removed = removed.or_else(|| self.nodes[at].message.take())?;
        while let Some((parent, level)) = path.pop() {
            let node = &self.nodes[at];
            if node.message.is_some() || !node.children.is_empty() {
                break;
            }
            self.nodes.remove(at);
            self.nodes[parent].children.remove(level);
            at = parent;
        }
        self.forget(&removed);
        Some(removed)
    }

    /// A message is not there any more.
    fn forget(&mut self, message: &Message) {
        if let Some(expires_at) = message.expires_at {
            self.expiries.remove(&(expires_at, message.topic.clone()));
        }
        self.count -= 1;
        self.bytes -= message.weight();
    }

    /// When the next message expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|&(at, _)| at)
    }

    /// The topic of a message that has expired at `now`.
    pub(crate) fn next_expired(&self, now: Timestamp) -> Option<Topic> {
        self.expiries.first().filter(|(at, _)| *at <= now).map(|(_, topic)| topic.clone())
    }

    /// The messages that match a filter and have not expired, in the order of their topics' levels; at most `limit`,
    /// and only those after the topic `after`, which must match too.
    pub(crate) fn matching(
        &self,
        filter: &TopicFilter,
        after: Option<&Topic>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<Arc<Message>> {
        let levels: Vec<&str> = filter.levels().collect();
        let after: Option<Vec<&str>> = after.map(|topic| topic.levels().collect());
        let mut search = Search { levels: &levels, now, limit, found: Vec::new() };
        self.search(ROOT, 0, after.as_deref(), &mut search);
        search.found
    }

    /// Looks at a node, `depth` levels below the root, and below it. `after` are the levels below the node of the topic
    /// that was the last, if that is here. Recursion is bounded by the levels that a topic may have.
    fn search(&self, at: usize, depth: usize, after: Option<&[&str]>, search: &mut Search<'_>) {
        let node = &self.nodes[at];
        if after.is_none() {
            search.offer(node.message.as_ref(), depth);
        }
        let last = after.and_then(<[&str]>::first).copied();
        let rest = after.map(|after| after.get(1..).unwrap_or_default());
        let Some(&level) = search.levels.get(depth) else { return };
        if level == "#" || level == "+" {
            let next = if level == "#" { depth } else { depth + 1 };
            let from = last.map_or(Bound::Unbounded, Bound::Included);
            for (name, child) in node.children.range::<str, _>((from, Bound::Unbounded)) {
                if search.is_full() {
                    return;
                }
                if at != ROOT || !name.starts_with('$') {
                    self.search_child(child, next, rest.filter(|_| last == Some(name)), search);
                }
            }
        } else if let Some(child) = node.children.get(level).filter(|_| !search.is_full()) {
            match last.map(|last| level.cmp(last)) {
                Some(Ordering::Less) => {}
                Some(Ordering::Equal) => self.search_child(child, depth + 1, rest, search),
                Some(Ordering::Greater) | None => self.search_child(child, depth + 1, None, search),
            }
        }
    }

    fn search_child(&self, child: &Child, depth: usize, after: Option<&[&str]>, search: &mut Search<'_>) {
        match child {
            Child::Node(child) => self.search(*child, depth, after, search),
            Child::Leaf(message) if after.is_none() => search.offer(Some(message), depth),
            Child::Leaf(_) => {}
        }
    }

    /// All messages, in the order of their topics' levels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        let mut pending: Vec<(Option<&Arc<Message>>, Option<usize>)> = vec![(None, Some(ROOT))];
        std::iter::from_fn(move || {
            while let Some((message, node)) = pending.pop() {
                if let Some(at) = node {
                    let node = &self.nodes[at];
                    pending.extend(node.children.values().rev().map(|child| match child {
                        Child::Leaf(message) => (Some(message), None),
                        Child::Node(child) => (None, Some(*child)),
                    }));
                    pending.push((node.message.as_ref(), None));
                } else if message.is_some() {
                    return message;
                }
            }
            None
        })
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        let mut below = 0;
        for (index, node) in &self.nodes {
            assert!(index == ROOT || node.message.is_some() || !node.children.is_empty());
            below += node.children.values().filter(|child| matches!(child, Child::Node(_))).count();
        }
        assert_eq!(below + 1, self.nodes.len(), "each node is below one other");
        assert_eq!(self.iter().count(), self.count);
        assert_eq!(self.iter().map(|message| message.weight()).sum::<usize>(), self.bytes);
        assert_eq!(self.iter().filter(|message| message.expires_at.is_some()).count(), self.expiries.len());
    }
}
