//! Why a handler failed, and with it what becomes of the event.
//!
//! There are two kinds and no more: *retry* (the event comes again after a pause) and *reject* (it becomes a dead letter at
//! once). Any standard error turns into *retry* by `?`, since most failures pass; to give up is always written out.

use std::fmt;
use std::time::Duration;

/// The result of a handler, and of whatever it calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a handler failed. Whatever it wrote and published for the event is dropped.
///
/// Like `anyhow::Error`, it does not implement [`std::error::Error`], so that every type that does turns into it by `?`.
///
/// ```
/// use vespiary_sdk::{Error, OrReject, Result};
///
/// fn number(text: &str) -> Result<i32> {
///     Ok(text.parse()?) // retry
/// }
/// fn digit(text: &str) -> Result<i32> {
///     let number: i32 = text.parse().or_reject()?; // dead letter
///     if number > 9 {
///         return Err(Error::reject(format!("{number} is no digit")));
///     }
///     Ok(number)
/// }
/// assert!(!number("x").unwrap_err().is_reject());
/// assert!(digit("x").unwrap_err().is_reject());
/// ```
pub struct Error {
    /// Whether the event becomes a dead letter at once.
    reject: bool,
    /// When it comes again, if that is not left to the broker.
    after: Option<Duration>,
    /// The reason, with the errors beneath it.
    message: String,
}

impl Error {
    /// The event failed for now: it comes again after a pause, and becomes a dead letter after several attempts.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self { reject: false, after: None, message: reason.into() }
    }

    /// The event failed for now and comes again after this pause, rather than after one that grows with each attempt.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(ready: bool) -> Result<()> {
    /// if !ready {
    ///     return Err(Error::retry("the line is busy").after(Duration::from_secs(30)));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn after(mut self, pause: Duration) -> Self {
        self.after = Some(pause);
        self
    }

    /// As [`retry`](Self::retry) and [`after`](Self::after) together, with a reason that says only that.
    pub fn retry_after(pause: Duration) -> Self {
        Self::retry(format!("to be tried again in {pause:?}")).after(pause)
    }

    /// The event will never succeed: it becomes a dead letter at once, with this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self { reject: true, after: None, message: reason.into() }
    }

    /// Whether the event becomes a dead letter at once.
    pub fn is_reject(&self) -> bool {
        self.reject
    }

    /// The reason, with the errors beneath it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When the event comes again, if that is not left to the broker.
    pub fn pause(&self) -> Option<Duration> {
        self.after
    }

    /// The reason.
    pub(crate) fn into_message(self) -> String {
        self.message
    }

    /// This error, made to reject.
    fn rejecting(mut self) -> Self {
        self.reject = true;
        self
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(beneath) = source {
            let text = beneath.to_string();
            // Many errors print their source themselves.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = beneath.source();
        }
        Self::retry(message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.reject { "reject" } else { "retry" };
        write!(f, "{kind}: {}", self.message)
    }
}

/// Turns a failure into one that will not be tried again: the event becomes a dead letter.
pub trait OrReject<T> {
    /// Rejects the event with the error's own reason; for `None`, that a value is missing.
    fn or_reject(self) -> Result<T>;

    /// Rejects the event with this reason, before the error's own.
    fn or_reject_with(self, reason: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> OrReject<T> for std::result::Result<T, E> {
    fn or_reject(self) -> Result<T> {
        self.map_err(|error| error.into().rejecting())
    }

    fn or_reject_with(self, reason: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::reject(format!("{reason}: {}", error.into())))
    }
}

impl<T> OrReject<T> for Option<T> {
    fn or_reject(self) -> Result<T> {
        self.ok_or_else(|| Error::reject("a value is missing"))
    }

    fn or_reject_with(self, reason: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::reject(reason.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_beneath_are_part_of_the_reason() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no count")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Outer("x".parse::<i32>().unwrap_err()));
        assert_eq!(format!("{error:?}"), "retry: no count: invalid digit found in string");
    }

    #[test]
    fn only_what_is_said_to_reject_rejects() {
        let parsed = || "x".parse::<u8>();
        assert!(!Error::from(parsed().unwrap_err()).is_reject());
        assert!(parsed().or_reject().unwrap_err().is_reject());
        assert!(Err::<(), Error>(Error::retry("later")).or_reject().unwrap_err().is_reject());
        let error = parsed().or_reject_with("the count").unwrap_err();
        assert_eq!(error.message(), "the count: invalid digit found in string");
        assert_eq!(None::<u8>.or_reject_with("no such asset").unwrap_err().message(), "no such asset");
        assert_eq!(Some(1).or_reject().unwrap(), 1);
    }
}
