//! Where a connection keeps what few connections have: behind a pointer, taken out while something is done with it.

use std::cell::Cell;

/// Perhaps a value; a pointer where there is none.
pub(super) struct Kept<T>(Cell<Option<Box<T>>>);

impl<T> Kept<T> {
    /// Forgets the value.
    pub(super) fn forget(&self) {
        self.0.set(None);
    }

    /// Keeps a value, in the place of the one before.
    pub(super) fn keep(&self, value: T) {
        self.0.set(Some(Box::new(value)));
    }

    /// Looks at the value or changes it. Nothing else may be done with it meanwhile: it would not be there.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.0.take()?;
        let result = act(&mut value);
        self.0.set(Some(value));
        Some(result)
    }

    /// The same, and makes the value if there is none.
    pub(super) fn with_some<R>(&self, act: impl FnOnce(&mut T) -> R) -> R
    where
        T: Default,
    {
        let mut value = self.0.take().unwrap_or_default();
        let result = act(&mut value);
        self.0.set(Some(value));
        result
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Cell::new(None))
    }
}
