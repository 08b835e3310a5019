//! A workload with all of its knobs, as a command line gives it and a report keeps it.

use serde::{Deserialize, Serialize};

use super::{
    Erc20, Erc20Options, LuaPay, LuaPayOptions, NativeTransfer, PaymentOptions, Spread, Workload,
    WorkloadName,
};
use crate::draw::{BadWorkload, Skew};

/// Where footprints come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FootprintFrom {
    /// The client declares them: they travel with the transactions.
    Declared,
    /// The cluster finds them, by prediction or by trial.
    Discovered,
}

impl std::fmt::Display for FootprintFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Declared => "declared",
            Self::Discovered => "discovered",
        })
    }
}

impl std::str::FromStr for FootprintFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "declared" => Ok(Self::Declared),
            "discovered" => Ok(Self::Discovered),
            _ => Err(format!("footprints are declared or discovered, not {text:?}")),
        }
    }
}

/// A workload and its knobs: the same ones give the same transactions, byte for byte.
///
/// A knob that is not given has the workload's own default. One that the workload does not have
/// (see [`WorkloadName::knobs`]) is refused by [`open`](Self::open), never ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Which workload.
    pub workload: WorkloadName,
    /// The seed of everything random. Runs with different seeds don't meet: they share no key.
    pub seed: u64,
    /// The chain id that Ethereum transactions are signed for. The others ignore it: it is the
    /// cluster's, not a knob.
    pub chain_id: u64,
    /// Accounts that pay one another, or records of YCSB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<u32>,
    /// How often each of them is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<Skew>,
    /// How many of 100 transactions touch the first account (record, warehouse, pool), whatever
    /// the skew says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<u8>,
    /// How many transactions touch several partitions, and how many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// How many of 100 transactions (of YCSB: of accesses) only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u8>,
    /// Where footprints come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<FootprintFrom>,
    /// How many tokens there are; of swaps, how many pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Whether transactions are signed, where they need not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<bool>,
    /// Records of one transaction of YCSB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u16>,
    /// Bytes of each of the ten fields of a record of YCSB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_bytes: Option<u16>,
    /// Warehouses of TPC-C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouses: Option<u32>,
    /// Items of TPC-C; 100,000 in the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
    /// Customers in each district of TPC-C, and orders that it begins with; 3,000 in the
    /// specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customers: Option<u32>,
    /// How many of 100 new-orders and of 100 payments of TPC-C have to do with another warehouse.
    /// Without it, the rules of the specification hold: each line of an order with 1 %, payments
    /// with 15 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<u8>,
    /// BLAKE3 hashes of 32 bytes in each transaction that keeps a core busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
}

impl WorkloadSpec {
    /// The workload with that seed and no knob given.
    #[must_use]
    pub fn new(workload: WorkloadName, seed: u64, chain_id: u64) -> Self {
        Self {
            workload,
            seed,
            chain_id,
            accounts: None,
            skew: None,
            conflict: None,
            spread: None,
            read: None,
            footprint: None,
            tokens: None,
            signed: None,
            keys: None,
            field_bytes: None,
            warehouses: None,
            items: None,
            customers: None,
            remote: None,
            rounds: None,
        }
    }

    /// The names of all workloads.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        WorkloadName::ALL.into_iter().map(WorkloadName::as_str)
    }

    /// What the workload does, for people.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        self.workload.describe()
    }

    /// Whether its transactions are signed: only then building them takes long.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.workload.is_signed() || self.signed == Some(true)
    }

    /// The workload, of which nothing is built yet.
    ///
    /// # Errors
    /// [`BadWorkload`] if it lacks a knob that is given, or the values are impossible.
    pub fn open(&self) -> Result<Box<dyn Workload>, BadWorkload> {
        self.check_knobs()?;
        let payments = self.payments(1_000);
        Ok(match self.workload {
            WorkloadName::Erc20 => {
                let options = Erc20Options { payments, chain_id: self.chain_id };
                match self.spread {
                    None => Box::new(Erc20::new(options)?),
                    Some(spread) => Box::new(Erc20::spread(options, spread)?),
                }
            }
            WorkloadName::LuaPay => {
                let declared = self.footprint == Some(FootprintFrom::Declared);
                let signed = self.signed.unwrap_or(false);
                Box::new(LuaPay::new(LuaPayOptions { payments, signed, declared })?)
            }
            WorkloadName::NativeTransfer => match self.spread {
                None => Box::new(NativeTransfer::new(payments)?),
                Some(spread) => Box::new(NativeTransfer::one_spread(payments, spread)?),
            },
            WorkloadName::NativeTransfer4 => match self.spread {
                None => Box::new(NativeTransfer::two(payments)?),
                Some(spread) => Box::new(NativeTransfer::spread(payments, spread)?),
            },
            _ => return Err(BadWorkload::Name { text: self.workload.to_string() }),
        })
    }

    fn payments(&self, accounts: u32) -> PaymentOptions {
        PaymentOptions {
            seed: self.seed,
            accounts: self.accounts.unwrap_or(accounts),
            skew: self.skew.unwrap_or(Skew::Uniform),
            conflict: self.conflict.unwrap_or(0),
        }
    }

    /// Refuses knobs that the workload does not have, and those that exclude each other.
    fn check_knobs(&self) -> Result<(), BadWorkload> {
        let workload = self.workload;
        let mut given = self.given().into_iter().filter_map(|(knob, value)| value.and(Some(knob)));
        if let Some(knob) = given.find(|knob| !workload.knobs().contains(knob)) {
            return Err(BadWorkload::Knob { workload, knob });
        }
        for (knob, percent) in
            [("conflict", self.conflict), ("read", self.read), ("remote", self.remote)]
        {
            if let Some(percent) = percent.filter(|percent| *percent > 100) {
                return Err(BadWorkload::Share { knob, percent });
            }
        }
        for (other, value) in self.given() {
            let excluded = ["conflict", "tokens", "remote"].contains(&other);
            if self.spread.is_some() && value.is_some() && excluded {
                let reason = "where accounts lie decides who is chosen";
                return Err(BadWorkload::Together { one: "spread", other, reason });
            }
        }
        Ok(())
    }

    /// The knobs, each with its value if it is given.
    fn given(&self) -> Vec<(&'static str, Option<String>)> {
        fn text(value: Option<impl std::fmt::Display>) -> Option<String> {
            value.map(|value| value.to_string())
        }
        vec![
            ("accounts", text(self.accounts)),
            ("skew", text(self.skew)),
            ("conflict", text(self.conflict.map(|percent| format!("{percent} %")))),
            ("spread", text(self.spread)),
            ("read", text(self.read.map(|percent| format!("{percent} %")))),
            ("footprint", text(self.footprint)),
            ("tokens", text(self.tokens)),
            ("signed", text(self.signed)),
            ("keys", text(self.keys)),
            ("field_bytes", text(self.field_bytes)),
            ("warehouses", text(self.warehouses)),
            ("items", text(self.items)),
            ("customers", text(self.customers)),
            ("remote", text(self.remote.map(|percent| format!("{percent} %")))),
            ("rounds", text(self.rounds)),
        ]
    }
}

/// The name, and the knobs that were given.
impl std::fmt::Display for WorkloadSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (", self.workload)?;
        for (knob, value) in self.given() {
            if let Some(value) = value {
                write!(f, "{knob} {value}, ")?;
            }
        }
        write!(f, "seed {})", self.seed)
    }
}

impl std::str::FromStr for WorkloadSpec {
    type Err = BadWorkload;

    /// Reads a workload's name: it has no knob given, seed 1 and chain id 1.
    fn from_str(name: &str) -> Result<Self, BadWorkload> {
        Ok(Self::new(name.parse()?, 1, 1))
    }
}
