//! Retained messages: the last one of each topic that was published with the RETAIN flag.
//!
//! A tree of levels finds those that match a filter in the order of their topics. Invariants: a node other than the
//! root has a message or a child; `expiries` names exactly the messages that expire.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use slab::Slab;

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

impl Search<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }
}

/// A node of the tree.
#[derive(Debug, Default)]
struct Node {
    /// The node above; the root's is itself.
    parent: usize,
    /// The level that leads here from the parent.
    level: Box<str>,
    /// The nodes below, by level.
    children: BTreeMap<Box<str>, usize>,
    /// The message of the topic that ends here.
    message: Option<Arc<Message>>,
}

const ROOT: usize = 0;

impl Retained {
    /// No messages.
    pub(crate) fn new() -> Self {
        let nodes = Slab::from_iter([(ROOT, Node::default())]);
        Self { nodes, expiries: BTreeSet::new(), count: 0, bytes: 0 }
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
        self.nodes[self.node(topic)?].message.as_ref()
    }

    fn node(&self, topic: &Topic) -> Option<usize> {
        topic.levels().try_fold(ROOT, |at, level| self.nodes[at].children.get(level).copied())
    }

    /// Makes this the message of its topic.
    pub(crate) fn insert(&mut self, message: Arc<Message>) {
        self.remove(&message.topic);
        let mut at = ROOT;
        for level in message.topic.levels() {
            at = match self.nodes[at].children.get(level) {
                Some(&child) => child,
                None => self.add_node(at, level),
            };
        }
        if let Some(expires_at) = message.expires_at {
            self.expiries.insert((expires_at, message.topic.clone()));
        }
        self.count += 1;
        self.bytes += message.weight();
        self.nodes[at].message = Some(message);
    }

    fn add_node(&mut self, parent: usize, level: &str) -> usize {
        let node = Node { parent, level: level.into(), ..Node::default() };
        let child = self.nodes.insert(node);
        self.nodes[parent].children.insert(level.into(), child);
        child
    }

    /// Removes the message of a topic.
    pub(crate) fn remove(&mut self, topic: &Topic) -> Option<Arc<Message>> {
        let mut at = self.node(topic)?;
        let message = self.nodes[at].message.take()?;
        if let Some(expires_at) = message.expires_at {
            self.expiries.remove(&(expires_at, topic.clone()));
        }
        self.count -= 1;
        self.bytes -= message.weight();
        while at != ROOT && self.nodes[at].message.is_none() && self.nodes[at].children.is_empty() {
            let Node { parent, level, .. } = self.nodes.remove(at);
            self.nodes[parent].children.remove(&level);
            at = parent;
        }
        Some(message)
    }

    /// When the next message expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|&(at, _)| at)
    }

    /// The topic of a message that has expired at `now`.
    pub(crate) fn next_expired(&self, now: Timestamp) -> Option<Topic> {
        self.expiries.first().filter(|(at, _)| *at <= now).map(|(_, topic)| topic.clone())
    }

    /// The messages that match a filter and have not expired, in the order of their topics' levels; at most `limit`, and
    /// only those after the topic `after`, which must match too.
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
        let ends_here = matches!(search.levels.get(depth), None | Some(&"#"));
        if ends_here && after.is_none() {
            let message = node.message.as_ref().filter(|message| !message.is_expired(search.now));
            search.found.extend(message.cloned());
        }
        let last = after.and_then(<[&str]>::first).copied();
        match search.levels.get(depth) {
            None => {}
            Some(&level) if level == "#" || level == "+" => {
                let next = if level == "#" { depth } else { depth + 1 };
                let from = last.map_or(Bound::Unbounded, Bound::Included);
                for (name, &child) in node.children.range::<str, _>((from, Bound::Unbounded)) {
                    if search.is_full() {
                        return;
                    }
                    if at != ROOT || !name.starts_with('$') {
                        let below = if last == Some(name) { after.map(|after| &after[1..]) } else { None };
                        self.search(child, next, below, search);
                    }
                }
            }
            Some(&level) => {
                let Some(&child) = node.children.get(level).filter(|_| !search.is_full()) else { return };
                match last.map(|last| level.cmp(last)) {
                    Some(Ordering::Less) => {}
                    Some(Ordering::Equal) => self.search(child, depth + 1, after.map(|after| &after[1..]), search),
                    Some(Ordering::Greater) | None => self.search(child, depth + 1, None, search),
                }
            }
        }
    }

    /// All messages, in the order of their topics' levels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        let mut pending = vec![ROOT];
        std::iter::from_fn(move || {
            while let Some(at) = pending.pop() {
                let node = &self.nodes[at];
                pending.extend(node.children.values().rev());
                if node.message.is_some() {
                    return node.message.as_ref();
                }
            }
            None
        })
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        for (index, node) in &self.nodes {
            assert!(index == ROOT || node.message.is_some() || !node.children.is_empty());
            for (level, &child) in &node.children {
                assert_eq!((self.nodes[child].parent, &self.nodes[child].level), (index, level));
            }
        }
        assert_eq!(self.iter().count(), self.count);
        assert_eq!(self.iter().map(|message| message.weight()).sum::<usize>(), self.bytes);
        assert_eq!(self.iter().filter(|message| message.expires_at.is_some()).count(), self.expiries.len());
    }
}
