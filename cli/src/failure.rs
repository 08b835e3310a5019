//! How a command fails: with one clear message.

/// Why a command failed, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

/// A failure with this message.
pub fn failed(message: impl std::fmt::Display) -> Failure {
    Failure(message.to_string())
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// Fails with "`what`: error".
    ///
    /// # Errors
    /// The failure.
    fn context(self, what: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| failed(format!("{what}: {error}")))
    }
}
