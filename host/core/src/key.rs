//! Names of what the broker keeps in slabs. They hold while the process lives and may be reused after that; what goes
//! to disk has names of its own ([`SessionId`](crate::event::SessionId), [`MessageId`](crate::message::MessageId)).

/// Names a session; reused after the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(u32);

/// Names a subscription while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionKey(u32);

/// Names the group of a shared subscription while it has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupKey(u32);

impl SessionKey {
    pub(crate) fn new(index: usize) -> Self {
        Self(narrow(index))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl SubscriptionKey {
    pub(crate) fn new(index: usize) -> Self {
        Self(narrow(index))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl GroupKey {
    pub(crate) fn new(index: usize) -> Self {
        Self(narrow(index))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An index into a slab in half its size.
pub(crate) fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("memory ends long before 2^32 entries")
}
