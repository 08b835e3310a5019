//! Stores that stop writing when told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use parsec_cli::cluster::OpenStore;
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};
use parsec_storage::Digest;
use parsec_storage::store::{Applied, EpochCommit, MemoryStore, Store, StoreError};

/// The stores of a cluster's partitions, in memory. They outlive the cluster, and can be made to
/// fall behind it: a held one takes no commit any more.
#[derive(Clone, Default)]
pub struct HeldStores(Arc<Shared>);

#[derive(Default)]
struct Shared {
    partitions: Mutex<BTreeMap<PartitionId, Arc<MemoryStore>>>,
    faults: Mutex<Faults>,
    changed: Condvar,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }
}

#[derive(Default)]
struct Faults {
    held: Vec<PartitionId>,
    /// How often everything crashed. What was opened before such a crash writes no more.
    crashes: u64,
    /// How often a partition crashed alone.
    crashes_alone: BTreeMap<PartitionId, u64>,
}

impl Faults {
    /// How often a partition crashed, alone or with all others.
    fn crashes_of(&self, partition: PartitionId) -> u64 {
        self.crashes + self.crashes_alone.get(&partition).copied().unwrap_or_default()
    }
}

impl HeldStores {
    /// For [`ClusterOptions::stores`](parsec_cli::cluster::ClusterOptions::stores).
    #[must_use]
    pub fn open(&self) -> OpenStore {
        let shared = self.0.clone();
        Arc::new(move |partition| {
            let crashes = shared.faults().crashes_of(partition);
            let mut partitions = shared.partitions.lock().unwrap();
            let inner = partitions.entry(partition).or_default().clone();
            Arc::new(HeldStore { partition, inner, crashes, shared: shared.clone() })
        })
    }

    /// From now on these partitions take no commit, and all others do.
    pub fn hold(&self, partitions: &[PartitionId]) {
        self.faults().held = partitions.to_vec();
        self.0.changed.notify_all();
    }

    /// Nothing that was opened writes any more, and nothing is held for those that open anew.
    pub fn crash(&self) {
        let mut faults = self.faults();
        faults.held.clear();
        faults.crashes += 1;
        self.0.changed.notify_all();
    }

    /// What was opened of these partitions writes no more, until they are opened anew.
    pub fn crash_alone(&self, partitions: &[PartitionId]) {
        let mut faults = self.faults();
        for partition in partitions {
            *faults.crashes_alone.entry(*partition).or_default() += 1;
            faults.held.retain(|held| held != partition);
        }
        self.0.changed.notify_all();
    }

    /// The last epoch in the store of each partition.
    #[must_use]
    pub fn applied(&self) -> Vec<EpochNumber> {
        self.0.partitions.lock().unwrap().values().map(|store| store.applied().epoch).collect()
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.faults()
    }
}

struct HeldStore {
    partition: PartitionId,
    inner: Arc<MemoryStore>,
    crashes: u64,
    shared: Arc<Shared>,
}

impl HeldStore {
    /// Waits while it is held. What it then writes, it writes before the next crash.
    fn writable(&self) -> Result<MutexGuard<'_, Faults>, StoreError> {
        let held = |faults: &mut Faults| {
            faults.crashes_of(self.partition) == self.crashes
                && faults.held.contains(&self.partition)
        };
        let faults = self.shared.changed.wait_while(self.shared.faults(), held).unwrap();
        let is_open = faults.crashes_of(self.partition) == self.crashes;
        if is_open { Ok(faults) } else { Err(StoreError::Poisoned) }
    }
}

impl Store for HeldStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.inner.get(key)
    }

    fn commit(&self, commit: EpochCommit) -> Result<(), StoreError> {
        let _writable = self.writable()?;
        self.inner.commit(commit)
    }

    fn advance(&self, epoch: EpochNumber) {
        if let Ok(_writable) = self.writable() {
            self.inner.advance(epoch);
        }
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        self.inner.read_at(epoch, keys)
    }

    fn applied(&self) -> Applied {
        self.inner.applied()
    }

    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError> {
        self.inner.state_digest(epoch)
    }

    fn sync(&self) -> Result<EpochNumber, StoreError> {
        self.inner.sync()
    }

    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError> {
        self.inner.receipts(from, limit)
    }

    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError> {
        self.inner.receipt(position)
    }

    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        self.inner.outbox(to, after, limit)
    }

    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        self.inner.prune_outbox(to, through)
    }

    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError> {
        self.inner.verify(counted)
    }
}
