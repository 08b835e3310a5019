//! What a partition has had to do, and what it has handed to others, since it started.

/// Counts of a [`Partition`](crate::Partition), from its start on; a restart begins anew.
///
/// They tell whether work is spread: a key that all transactions touch shows as a partition with
/// more of these than its share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Transactions whose home it is.
    pub homed: u64,
    /// Transactions at home elsewhere that touch keys here.
    pub participations: u64,
    /// Pushes made for other partitions. What is sent again after a loss does not count again.
    pub pushes_sent: u64,
    /// Pushes that came from other partitions, those that came again included.
    pub pushes_received: u64,
}

impl Traffic {
    /// What came on top since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            homed: self.homed - earlier.homed,
            participations: self.participations - earlier.participations,
            pushes_sent: self.pushes_sent - earlier.pushes_sent,
            pushes_received: self.pushes_received - earlier.pushes_received,
        }
    }
}
