//! Which stage of a transaction's way a thread works at, by its name.

/// The stage of the main thread, which only waits.
pub const MAIN: &str = "main";
/// The stage of threads that ended before they could be asked what they had used.
pub const ENDED: &str = "ended threads";

/// Beginnings of thread names, as the system shows them (15 bytes), and their stages.
const STAGES: [(&str, &str); 11] = [
    ("parsec-admit", "admission"),
    ("parsec-dispatch", "dispatch"),
    ("parsec-log", "log"),
    ("parsec-seal", "blocks"),
    ("worker-", "scheduling, execution"),
    ("commit-", "storage"),
    ("sync", "storage"),
    ("fjall", "storage"),
    ("tokio-", "network"),
    ("bench-", "load generator"),
    ("relay-", "relay"),
];

/// The stage that a thread of this name works at. A thread that nobody has named a stage for is
/// one of its own.
#[must_use]
pub fn of_thread(name: &str) -> &str {
    let known = STAGES.iter().find(|(prefix, _)| name.starts_with(prefix));
    known.map_or(name, |(_, stage)| stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_known_by_what_the_system_keeps_of_their_names() {
        for (name, stage) in [
            ("parsec-admit-0", "admission"),
            ("parsec-dispatch", "dispatch"),
            ("parsec-log", "log"),
            ("parsec-seal", "blocks"),
            ("worker-p12-0", "scheduling, execution"),
            ("commit-p12", "storage"),
            ("fjall:worker", "storage"),
            ("tokio-rt-worker", "network"),
            ("somebody else", "somebody else"),
        ] {
            assert_eq!(of_thread(name), stage, "{name}");
        }
    }
}
