//! Names of what outlives a process in the kernel: namespaces, interfaces, control groups.
//!
//! Each name tells which process made it. So two runs do not collide, and what a run left behind
//! that was killed is recognised by the next one, which removes it.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

/// What names of namespaces and control groups begin with.
const PREFIX: &str = "parsec-";
/// What names of interfaces begin with; they may have 15 bytes.
const INTERFACE_PREFIX: &str = "prs";

/// Who owns something: a process, and which of its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The process.
    pub process: u32,
    /// 0 to 15.
    pub cluster: u8,
}

impl Owner {
    /// This process, and another cluster than before.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        Self { process: std::process::id(), cluster: NEXT.fetch_add(1, Ordering::Relaxed) % 16 }
    }

    /// The name of the namespace, or control group, of a node.
    #[must_use]
    pub fn name(self, node: u16) -> String {
        format!("{PREFIX}{}-{}-{node}", self.process, self.cluster)
    }

    /// The name of the bridge.
    #[must_use]
    pub fn bridge(self) -> String {
        format!("{INTERFACE_PREFIX}{:x}.{:x}b", self.process, self.cluster)
    }

    /// The name of the interface to a node.
    #[must_use]
    pub fn interface(self, node: u16) -> String {
        format!("{INTERFACE_PREFIX}{:x}.{:x}n{node}", self.process, self.cluster)
    }

    /// Whose namespace or control group has this name; `None` if it is none of ours.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
        let owner =
            Self { process: parts.next()?.parse().ok()?, cluster: parts.next()?.parse().ok()? };
        let node: u16 = parts.next()?.parse().ok()?;
        (owner.name(node) == name).then_some(owner)
    }

    /// Whose interface has this name; `None` if it is none of ours.
    #[must_use]
    pub fn of_interface(name: &str) -> Option<Self> {
        let (process, rest) = name.strip_prefix(INTERFACE_PREFIX)?.split_once('.')?;
        let owner = Self {
            process: u32::from_str_radix(process, 16).ok()?,
            cluster: u8::from_str_radix(rest.get(..1)?, 16).ok()?,
        };
        let node = rest.get(2..).and_then(|node| node.parse::<u16>().ok());
        let is_ours =
            name == owner.bridge() || node.is_some_and(|node| name == owner.interface(node));
        is_ours.then_some(owner)
    }

    /// Whether the process runs still.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Path::new("/proc").join(self.process.to_string()).exists()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The most that Linux has processes.
    const PROCESS_MAX: u32 = 1 << 22;

    proptest! {
        #[test]
        fn names_tell_who_made_them(process in 1..=PROCESS_MAX, cluster in 0..16u8, node in 0..256u16) {
            let owner = Owner { process, cluster };
            prop_assert_eq!(Owner::of_name(&owner.name(node)), Some(owner));
            prop_assert_eq!(Owner::of_interface(&owner.bridge()), Some(owner));
            prop_assert_eq!(Owner::of_interface(&owner.interface(node)), Some(owner));
            prop_assert!(owner.interface(node).len() <= 15, "{}", owner.interface(node));
        }
    }

    #[test]
    fn what_others_made_is_not_ours() {
        for name in ["parsec-", "parsec-1", "parsec-1-2", "parsec-x-1-2", "parsec-01-1-2", "docker"]
        {
            assert_eq!(Owner::of_name(name), None, "{name}");
        }
        for name in ["eth0", "prs", "prs1.", "prs1.1", "prs1.bx", "prsx.1b", "prs1.1n", "prs01.1b"]
        {
            assert_eq!(Owner::of_interface(name), None, "{name}");
        }
        assert!(Owner::next().is_alive() && Owner::next() != Owner::next());
    }
}
