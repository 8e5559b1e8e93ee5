//! Who subscribes to what.
//!
//! Each filter that somebody subscribes to has one contiguous list of subscribers. A table finds the list of a filter,
//! and so, for a topic, the list of the filter that equals it. Filters with wildcards also stand in a tree of levels,
//! whose edges are one table keyed by node and level.
//!
//! The members of a shared subscription stand apart, in a group of their own under the list of the filter that they
//! share.
//!
//! Invariants: a list has subscribers or groups, a group has members; a node other than the root has a list, a `#` list
//! or a child; a subscriber's `position` names its place in its list.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use crate::event::{CLIENT_TOPICS, DEAD_LETTER_TOPICS, ShareNumber, SubscriptionOptions, SubscriptionRecord};
use crate::key::{GroupKey, SessionKey, SubscriptionKey, narrow};
use crate::message::Qos;
use crate::topic::{Topic, TopicFilter};

/// One subscriber in the list of a filter: what routing needs to know, in 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscriber {
    /// Whose it is.
    pub(crate) session: SessionKey,
    /// The subscription.
    pub(crate) subscription: SubscriptionKey,
    /// Highest QoS of deliveries.
    pub(crate) maximum_qos: Qos,
    /// No Local.
    pub(crate) no_local: bool,
    /// Retain As Published.
    pub(crate) retain_as_published: bool,
    /// Whether what it gets has to be durable.
    pub(crate) durable: bool,
    /// What else routing has to mind.
    pub(crate) kind: SubscriberKind,
}

/// What routing has to mind of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscriberKind {
    /// Nothing.
    Plain,
    /// Deliveries carry a Subscription Identifier.
    Identified,
    /// It is a plugin, whose inbox may refuse; plugins have no Subscription Identifiers.
    Plugin,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// What was asked for.
    pub(crate) options: SubscriptionOptions,
    /// The Subscription Identifier, shared by all deliveries for this subscription alone.
    pub(crate) identifiers: Option<Arc<[u32]>>,
    /// Its number, if it is a shared one.
    pub(crate) share: Option<ShareNumber>,
    /// Where it stands.
    home: Home,
    /// Its place there.
    position: u32,
}

/// Where a subscriber stands.
#[derive(Debug, Clone, Copy)]
enum Home {
    /// In the list of its filter.
    List(u32),
    /// In a group.
    Group(GroupKey),
}

/// Those who share a subscription: each message goes to one of them.
#[derive(Debug)]
pub(crate) struct Group {
    /// The members.
    pub(crate) members: Vec<Subscriber>,
    /// The place of the member that is considered first for the next message; may be past the end.
    pub(crate) next: usize,
    /// Its name.
    name: Box<str>,
    /// The list of the filter that they share.
    list: u32,
}

/// The subscribers of one filter.
#[derive(Debug)]
struct List {
    /// The filter.
    filter: TopicFilter,
    /// Where a filter with wildcards ends in the tree; `None` for one without.
    node: Option<u32>,
    /// The subscribers. Mostly one.
    subscribers: SmallVec<[Subscriber; 1]>,
    /// The groups; boxed, since few filters have some.
    #[expect(clippy::box_collection, reason = "a third of the size where there are none")]
    groups: Option<Box<Vec<GroupKey>>>,
}

/// A node of the tree.
#[derive(Debug)]
struct Node {
    /// The node above; the root's is itself.
    parent: u32,
    /// The level that leads here from the parent; `+` for the wildcard. Mostly short, so that comparing it is local.
    level: SmallVec<[u8; 16]>,
    /// The child for `+`.
    plus: Option<u32>,
    /// Children, that for `+` included.
    children: u32,
    /// The list of the filter that ends here.
    list: Option<u32>,
    /// The list of the filter that ends in `#` below here.
    rest: Option<u32>,
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    /// Hashes filters and edges; seeded, so that clients cannot choose strings that collide.
    hasher: FixedState,
    /// The subscriptions.
    subscriptions: Slab<Subscription>,
    /// The lists.
    lists: Slab<List>,
    /// The groups of shared subscriptions.
    groups: Slab<Group>,
    /// Finds a list by its filter.
    by_filter: HashTable<u32>,
    /// The nodes; the root is at index 0.
    nodes: Slab<Node>,
    /// Finds a child by its parent and its level.
    edges: HashTable<u32>,
    /// Lists whose filters match what the broker says by itself.
    observers: usize,
}

/// The lists that match a topic; kept and reused.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// The lists.
    lists: Vec<u32>,
    /// Nodes still to be visited, each with the offset of the rest of the topic; `None` past its end.
    pending: Vec<(u32, Option<usize>)>,
}

const ROOT: u32 = 0;

impl Subscriptions {
    /// No subscriptions.
    pub(crate) fn new(seed: u64) -> Self {
        let root = Node { parent: ROOT, level: SmallVec::new(), plus: None, children: 0, list: None, rest: None };
        Self {
            hasher: FixedState::with_seed(seed),
            subscriptions: Slab::new(),
            lists: Slab::new(),
            groups: Slab::new(),
            by_filter: HashTable::new(),
            nodes: Slab::from_iter([(ROOT as usize, root)]),
            edges: HashTable::new(),
            observers: 0,
        }
    }

    /// Filters of which there are subscriptions and which match what the broker says by itself.
    pub(crate) fn observers(&self) -> usize {
        self.observers
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Adds a subscription that does not exist yet. A plugin's has no identifier; a shared one has a number.
    pub(crate) fn insert(
        &mut self,
        session: SessionKey,
        kind: SubscriberKind,
        durable: bool,
        filter: &TopicFilter,
        record: SubscriptionRecord,
    ) -> SubscriptionKey {
        let home = match filter.shared() {
            Some((name, filter)) => Home::Group(self.group_for(name, &filter)),
            None => Home::List(self.list_for(filter)),
        };
        let position = narrow(self.residents(home).len());
        let identifiers = record.identifier.map(|identifier| Arc::from([identifier]));
        let SubscriptionRecord { options, identifier: _, share } = record;
        let subscription = Subscription { options, identifiers, share, home, position };
        let key = SubscriptionKey::new(self.subscriptions.insert(subscription));
        let subscriber = Subscriber::new(session, key, kind, durable, options);
        match home {
            Home::List(list) => self.lists[list as usize].subscribers.push(subscriber),
            Home::Group(group) => self.groups[group.index()].members.push(subscriber),
        }
        key
    }

    /// Changes the options and the identifier of a subscription.
    pub(crate) fn replace(&mut self, key: SubscriptionKey, kind: SubscriberKind, record: SubscriptionRecord) {
        let subscription = &mut self.subscriptions[key.index()];
        subscription.options = record.options;
        subscription.identifiers = record.identifier.map(|identifier| Arc::from([identifier]));
        let (home, position) = (subscription.home, subscription.position as usize);
        let subscriber = match home {
            Home::List(list) => &mut self.lists[list as usize].subscribers[position],
            Home::Group(group) => &mut self.groups[group.index()].members[position],
        };
        *subscriber = Subscriber::new(subscriber.session, key, kind, subscriber.durable, record.options);
    }

    /// Removes a subscription, which must exist.
    pub(crate) fn remove(&mut self, key: SubscriptionKey) {
        let Subscription { home, position, .. } = self.subscriptions.remove(key.index());
        match home {
            Home::List(list) => {
                let subscribers = &mut self.lists[list as usize].subscribers;
                subscribers.swap_remove(position as usize);
                if subscribers.spilled() && subscribers.len() * 4 < subscribers.capacity() {
                    subscribers.shrink_to_fit();
                }
            }
            Home::Group(group) => drop(self.groups[group.index()].members.swap_remove(position as usize)),
        }
        if let Some(moved) = self.residents(home).get(position as usize) {
            let moved = moved.subscription.index();
            self.subscriptions[moved].position = position;
        }
        match home {
            Home::List(list) => self.remove_list_if_unused(list),
            Home::Group(group) => self.remove_group_if_empty(group),
        }
    }

    /// Those who stand in a place.
    fn residents(&self, home: Home) -> &[Subscriber] {
        match home {
            Home::List(list) => &self.lists[list as usize].subscribers,
            Home::Group(group) => &self.groups[group.index()].members,
        }
    }

    fn list_for(&mut self, filter: &TopicFilter) -> u32 {
        self.find_list(filter.as_str()).unwrap_or_else(|| self.add_list(filter))
    }

    fn group_for(&mut self, name: &str, filter: &TopicFilter) -> GroupKey {
        let list = self.list_for(filter);
        if let Some(group) = self.find_in_list(list, name) {
            return group;
        }
        let group = Group { members: Vec::new(), next: 0, name: name.into(), list };
        let group = GroupKey::new(self.groups.insert(group));
        self.lists[list as usize].groups.get_or_insert_default().push(group);
        group
    }

    fn find_in_list(&self, list: u32, name: &str) -> Option<GroupKey> {
        let mut groups = self.lists[list as usize].groups.iter().flat_map(|groups| groups.iter().copied());
        groups.find(|group| &*self.groups[group.index()].name == name)
    }

    /// The group of a shared subscription, if it has members.
    pub(crate) fn find_group(&self, filter: &TopicFilter) -> Option<GroupKey> {
        let (name, filter) = filter.shared()?;
        self.find_in_list(self.find_list(filter.as_str())?, name)
    }

    /// A group, which must exist.
    pub(crate) fn group(&self, key: GroupKey) -> &Group {
        &self.groups[key.index()]
    }

    /// A group, which must exist.
    pub(crate) fn group_mut(&mut self, key: GroupKey) -> &mut Group {
        &mut self.groups[key.index()]
    }

    fn remove_group_if_empty(&mut self, key: GroupKey) {
        if !self.groups[key.index()].members.is_empty() {
            return;
        }
        let list = self.groups.remove(key.index()).list;
        let groups = &mut self.lists[list as usize].groups;
        if let Some(of_list) = groups {
            of_list.retain(|group| *group != key);
            if of_list.is_empty() {
                *groups = None;
            }
        }
        self.remove_list_if_unused(list);
    }

    fn remove_list_if_unused(&mut self, index: u32) {
        let list = &self.lists[index as usize];
        if list.subscribers.is_empty() && list.groups.is_none() {
            self.remove_list(index);
        }
    }

    /// A subscription, which must exist.
    pub(crate) fn subscription(&self, key: SubscriptionKey) -> &Subscription {
        &self.subscriptions[key.index()]
    }

    /// Finds the lists whose filters match a topic.
    pub(crate) fn find(&self, topic: &Topic, matches: &mut Matches) {
        matches.lists.clear();
        let name = topic.as_str();
        matches.lists.extend(self.find_list(name));
        let root = &self.nodes[ROOT as usize];
        if root.children == 0 && root.rest.is_none() {
            return;
        }
        let reserved = topic.is_reserved();
        debug_assert!(matches.pending.is_empty());
        matches.pending.push((ROOT, Some(0)));
        while let Some((index, offset)) = matches.pending.pop() {
            let node = &self.nodes[index as usize];
            let wild = index != ROOT || !reserved;
            if wild {
                matches.lists.extend(node.rest);
            }
            let Some(offset) = offset else {
                matches.lists.extend(node.list);
                continue;
            };
            if node.children == 0 {
                continue;
            }
            let rest = &name[offset..];
            let (level, next) = match rest.find('/') {
                Some(end) => (&rest[..end], Some(offset + end + 1)),
                None => (rest, None),
            };
            if let Some(child) = self.find_child(index, level) {
                matches.pending.push((child, next));
            }
            if let Some(plus) = node.plus.filter(|_| wild) {
                matches.pending.push((plus, next));
            }
        }
    }

    /// The subscribers of each list found.
    pub(crate) fn subscribers<'a>(&'a self, matches: &'a Matches) -> impl ExactSizeIterator<Item = &'a [Subscriber]> {
        matches.lists.iter().map(|&list| self.lists[list as usize].subscribers.as_slice())
    }

    /// Whether anybody shares a subscription.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The groups of the lists found.
    pub(crate) fn groups<'a>(&'a self, matches: &'a Matches) -> impl Iterator<Item = GroupKey> + 'a {
        let groups = matches.lists.iter().filter_map(|&list| self.lists[list as usize].groups.as_deref());
        groups.flatten().copied()
    }

    fn find_list(&self, filter: &str) -> Option<u32> {
        let hash = self.hash_filter(filter);
        self.by_filter.find(hash, |&list| self.lists[list as usize].filter.as_str() == filter).copied()
    }

    fn add_list(&mut self, filter: &TopicFilter) -> u32 {
        let wild = filter.levels().any(|level| level == "+" || level == "#");
        let node = wild.then(|| self.add_path(filter));
        let list = narrow(self.lists.insert(List {
            filter: filter.clone(),
            node,
            subscribers: SmallVec::new(),
            groups: None,
        }));
        if let Some(node) = node {
            let node = &mut self.nodes[node as usize];
            let place = if ends_in_hash(filter) { &mut node.rest } else { &mut node.list };
            debug_assert!(place.is_none());
            *place = Some(list);
        }
        let (hash, hasher, lists) = (self.hash_filter(filter.as_str()), &self.hasher, &self.lists);
        let rehash = |&list: &u32| hash_text(hasher, 0, lists[list as usize].filter.as_str().as_bytes());
        self.by_filter.insert_unique(hash, list, rehash);
        self.observers += usize::from(observes(filter));
        list
    }

    fn remove_list(&mut self, index: u32) {
        let hash = self.hash_filter(self.lists[index as usize].filter.as_str());
        if let Ok(entry) = self.by_filter.find_entry(hash, |&list| list == index) {
            entry.remove();
        }
        let list = self.lists.remove(index as usize);
        self.observers -= usize::from(observes(&list.filter));
        let Some(mut at) = list.node else { return };
        let node = &mut self.nodes[at as usize];
        *(if ends_in_hash(&list.filter) { &mut node.rest } else { &mut node.list }) = None;
        while at != ROOT && self.nodes[at as usize].is_unused() {
            at = self.remove_node(at);
        }
    }

    /// The node at which a filter ends (for `#`: the one above it), made where it does not exist.
    fn add_path(&mut self, filter: &TopicFilter) -> u32 {
        let mut at = ROOT;
        for level in filter.levels().filter(|&level| level != "#") {
            let child = match level {
                "+" => self.nodes[at as usize].plus,
                level => self.find_child(at, level),
            };
            at = child.unwrap_or_else(|| self.add_node(at, level));
        }
        at
    }

    fn find_child(&self, parent: u32, level: &str) -> Option<u32> {
        let hash = hash_text(&self.hasher, parent, level.as_bytes());
        let is_it = |&node: &u32| {
            let node = &self.nodes[node as usize];
            node.parent == parent && *node.level == *level.as_bytes()
        };
        self.edges.find(hash, is_it).copied()
    }

    fn add_node(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node {
            parent,
            level: SmallVec::from_slice(level.as_bytes()),
            plus: None,
            children: 0,
            list: None,
            rest: None,
        };
        let node = narrow(self.nodes.insert(node));
        self.nodes[parent as usize].children += 1;
        if level == "+" {
            self.nodes[parent as usize].plus = Some(node);
        } else {
            let (hasher, nodes) = (&self.hasher, &self.nodes);
            let rehash = |&node: &u32| hash_text(hasher, nodes[node as usize].parent, &nodes[node as usize].level);
            self.edges.insert_unique(hash_text(hasher, parent, level.as_bytes()), node, rehash);
        }
        node
    }

    /// Removes a node without children; gives its parent.
    fn remove_node(&mut self, index: u32) -> u32 {
        let Node { parent, level, .. } = self.nodes.remove(index as usize);
        self.nodes[parent as usize].children -= 1;
        if *level == *b"+" {
            self.nodes[parent as usize].plus = None;
        } else if let Ok(entry) = self.edges.find_entry(hash_text(&self.hasher, parent, &level), |&node| node == index)
        {
            entry.remove();
        }
        parent
    }

    fn hash_filter(&self, filter: &str) -> u64 {
        hash_text(&self.hasher, 0, filter.as_bytes())
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        for (index, list) in &self.lists {
            assert_eq!(self.observers, self.lists.iter().filter(|(_, list)| observes(&list.filter)).count());
            assert!(!list.subscribers.is_empty() || list.groups.is_some());
            assert_eq!(self.find_list(list.filter.as_str()), Some(narrow(index)));
            self.check_residents(Home::List(narrow(index)));
            for &group in list.groups.iter().flat_map(|groups| groups.iter()) {
                assert_eq!(self.groups[group.index()].list, narrow(index));
                assert_eq!(self.find_in_list(narrow(index), &self.groups[group.index()].name), Some(group));
            }
        }
        for (index, group) in &self.groups {
            assert!(!group.members.is_empty());
            self.check_residents(Home::Group(GroupKey::new(index)));
        }
        assert_eq!(self.by_filter.len(), self.lists.len());
        let subscribers: usize = self.lists.iter().map(|(_, list)| list.subscribers.len()).sum();
        let members: usize = self.groups.iter().map(|(_, group)| group.members.len()).sum();
        assert_eq!(subscribers + members, self.subscriptions.len());
        for (index, node) in &self.nodes {
            assert!(index == ROOT as usize || !node.is_unused());
        }
        let pluses = self.nodes.iter().filter(|(_, node)| node.plus.is_some()).count();
        assert_eq!(self.edges.len() + pluses + 1, self.nodes.len());
    }
}

impl Subscriptions {
    fn check_residents(&self, home: Home) {
        for (position, subscriber) in self.residents(home).iter().enumerate() {
            let subscription = self.subscription(subscriber.subscription);
            assert_eq!(subscription.position as usize, position);
            assert_eq!(subscription.share.is_some(), matches!(home, Home::Group(_)));
        }
    }
}

impl Subscription {
    /// What is kept of it on disk.
    pub(crate) fn record(&self) -> SubscriptionRecord {
        let identifier = self.identifiers.as_ref().and_then(|identifiers| identifiers.first().copied());
        SubscriptionRecord { options: self.options, identifier, share: self.share }
    }
}

impl Node {
    fn is_unused(&self) -> bool {
        self.children == 0 && self.list.is_none() && self.rest.is_none()
    }
}

impl Subscriber {
    fn new(
        session: SessionKey,
        subscription: SubscriptionKey,
        kind: SubscriberKind,
        durable: bool,
        options: SubscriptionOptions,
    ) -> Self {
        let SubscriptionOptions { maximum_qos, no_local, retain_as_published, retain_handling: _ } = options;
        Self { session, subscription, maximum_qos, no_local, retain_as_published, durable, kind }
    }
}

fn hash_text(hasher: &FixedState, salt: u32, text: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u32(salt);
    state.write(text);
    state.finish()
}

/// Whether a filter matches what the broker says by itself: wildcards do not reach topics that begin with `$`
/// [MQTT-4.7.2-1].
fn observes(filter: &TopicFilter) -> bool {
    filter.levels().next().is_some_and(|first| first == CLIENT_TOPICS || first == DEAD_LETTER_TOPICS)
}

fn ends_in_hash(filter: &TopicFilter) -> bool {
    filter.as_str().ends_with('#')
}
