//! Histories as text: one operation a line, in JSON.

use std::io::{self, BufRead, Write};

use crate::Operation;

/// Why a history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The text can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A line is no operation.
    #[error("line {line} is no operation: {error}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// Reads a history. Empty lines are left out.
///
/// # Errors
/// [`FileError`].
pub fn read_history(text: impl BufRead) -> Result<Vec<Operation>, FileError> {
    let mut operations = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let operation = serde_json::from_str(&line);
        operations.push(operation.map_err(|error| FileError::Line { line: number + 1, error })?);
    }
    Ok(operations)
}

/// Writes a history such that [`read_history`] reads it.
///
/// # Errors
/// What `text` says when it is written to.
pub fn write_history(operations: &[Operation], mut text: impl Write) -> io::Result<()> {
    for operation in operations {
        serde_json::to_writer(&mut text, operation)?;
        text.write_all(b"\n")?;
    }
    text.flush()
}
