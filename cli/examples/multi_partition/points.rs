//! The points that are measured.

use parsec_bench::workload::{
    Erc20, Erc20Options, LoadTransaction, NativeTransfer, PaymentOptions, Spread, Workload,
};
use parsec_cli::DEFAULT_CHAIN_ID;
use parsec_cli::failure::{Context, Failure};

use crate::Options;
use crate::measure::Measurement;

/// Partitions of the cluster.
pub(crate) const PARTITIONS: u16 = 4;

/// Which transactions are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Erc20,
}

impl Kind {
    /// Keys of one of them that stand on one partition each.
    fn keys(self) -> u16 {
        match self {
            Self::Native => 4,
            Self::Erc20 => 3,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "two native transfers, 4 keys",
            Self::Erc20 => "signed ERC-20 transfer, 3 keys",
        }
    }
}

/// A workload that tells how many of its transactions touch several partitions.
enum Spreading {
    Native(Box<NativeTransfer>),
    Erc20(Box<Erc20>),
}

/// A share of multi-partition transactions, their participants, and what came of it.
pub(crate) struct Point {
    pub(crate) spread: Spread,
    workload: Spreading,
    pub(crate) measured: Vec<Measurement>,
}

impl Point {
    /// All points: the one without multi-partition transactions first.
    pub(crate) fn all(kind: Kind, options: &Options) -> Result<Vec<Self>, Failure> {
        let participants = options.participants.iter().filter(|count| **count <= kind.keys());
        let shares = participants.flat_map(|participants| {
            options.percent.iter().map(|percent| (*percent, *participants))
        });
        let spreads = std::iter::once((0, 2)).chain(shares);
        let points = spreads.zip(1..).map(|((percent, participants), seed)| {
            let spread = Spread { partitions: PARTITIONS, percent, participants };
            Self::new(kind, options, spread, seed)
        });
        points.collect()
    }

    fn new(kind: Kind, options: &Options, spread: Spread, seed: u64) -> Result<Self, Failure> {
        let payments =
            PaymentOptions { seed, accounts: options.accounts, ..PaymentOptions::default() };
        let workload = match kind {
            Kind::Native => {
                NativeTransfer::spread(payments, spread).map(Box::new).map(Spreading::Native)
            }
            Kind::Erc20 => {
                let options = Erc20Options { payments, chain_id: DEFAULT_CHAIN_ID };
                Erc20::spread(options, spread).map(Box::new).map(Spreading::Erc20)
            }
        };
        let workload = workload.context(spread)?;
        Ok(Self { spread, workload, measured: Vec::new() })
    }

    pub(crate) fn workload(&self) -> &dyn Workload {
        match &self.workload {
            Spreading::Native(workload) => &**workload,
            Spreading::Erc20(workload) => &**workload,
        }
    }

    /// The next transactions, and how many of them touch several partitions.
    pub(crate) fn build(&mut self, count: usize) -> (Vec<LoadTransaction>, u64) {
        let before = self.multi_partition();
        let load = match &mut self.workload {
            Spreading::Native(workload) => workload.build(count, &|_| {}),
            Spreading::Erc20(workload) => workload.build(count, &|_| {}),
        };
        (load, self.multi_partition() - before)
    }

    fn multi_partition(&self) -> u64 {
        match &self.workload {
            Spreading::Native(workload) => workload.multi_partition(),
            Spreading::Erc20(workload) => workload.multi_partition(),
        }
    }
}
