//! The one error type of the library: what was tried, on what, and why it failed.

use std::{fmt::Display, io};

use thiserror::Error;

/// A result of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a trace could not be made. Its text is one line.
#[derive(Debug, Error)]
pub enum Error {
    /// A mistake of the user or a lack of the host. The text says how to mend it.
    #[error("{0}")]
    Told(String),
    /// An operation on an object failed.
    #[error("cannot {action} {object}: {source}")]
    Failed {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        object: String,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A signal asked for the end before the program was started.
    #[error("ended by signal {0} before the program was started")]
    Interrupted(i32),
}

impl Error {
    /// An error of the kind [`Error::Told`].
    pub fn told(text: impl Into<String>) -> Self {
        Self::Told(text.into())
    }

    /// The errno behind the error, if there is one.
    pub fn errno(&self) -> Option<i32> {
        let Self::Failed { source, .. } = self else { return None };
        let mut causes =
            std::iter::successors(Some(source.as_ref() as &dyn std::error::Error), |error| error.source());
        if let Some(error) = causes.find_map(|error| error.downcast_ref::<io::Error>()) {
            return error.raw_os_error();
        }
        match source.downcast_ref::<rtnetlink::Error>()? {
            rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
            _ => None,
        }
    }
}

/// Adds to a foreign error what was tried, and on what.
pub trait Context<T> {
    /// `action` is a verb, as in "cannot `create` `link nsgw1`: …".
    fn context(self, action: &'static str, object: impl Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|source| {
            // One way of saying what the kernel answers.
            let source = match source.into().downcast::<nix::Error>() {
                Ok(errno) => io::Error::from(*errno).into(),
                Err(other) => other,
            };
            Error::Failed { action, object: object.to_string(), source }
        })
    }
}
