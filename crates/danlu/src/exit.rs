use std::process::ExitCode;

use anyhow::Error;

/// Why the program ends without success; each has its exit code, listed in `danlu --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Failure = 1,
    /// A file, recipe, name or other thing given by the user is wrong.
    BadInput = 3,
    /// The plan needs more memory or disk than there is.
    DoesNotFit = 4,
    /// Stopped by Ctrl-C; what was done is saved.
    Interrupted = 130,
}

/// An error with its exit code.
#[derive(Debug)]
pub struct Exit {
    pub reason: Reason,
    pub error: Option<Error>,
}

pub type Outcome<T = ()> = Result<T, Exit>;

impl Exit {
    /// The user stopped the program, and was told so already.
    pub fn interrupted() -> Self {
        Self { reason: Reason::Interrupted, error: None }
    }

    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.reason as u8)
    }
}

impl<E: Into<Error>> From<E> for Exit {
    fn from(error: E) -> Self {
        Self { reason: Reason::Failure, error: Some(error.into()) }
    }
}

/// Marks an error as the fault of what was given.
pub fn bad_input(error: impl Into<Error>) -> Exit {
    Exit { reason: Reason::BadInput, error: Some(error.into()) }
}

pub fn does_not_fit(error: impl Into<Error>) -> Exit {
    Exit { reason: Reason::DoesNotFit, error: Some(error.into()) }
}
