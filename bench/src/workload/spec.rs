//! A workload with all of its knobs, as a command line gives it and a report keeps it.

use serde::{Deserialize, Serialize};

use super::{
    Compute, ComputeOptions, Erc20, Erc20Options, Ether, EtherOptions, Letter, LuaPay,
    LuaPayOptions, Mix, NativeTransfer, Nft, NftOptions, PaymentOptions, Remote, SmallBank,
    SmallBankOptions, Spread, Swap, SwapOptions, Tpcc, TpccOptions, Workload, WorkloadName, Ycsb,
    YcsbOptions,
};
use crate::draw::{BadWorkload, Skew};

/// How skewed YCSB is by itself: its zipfian constant.
const YCSB_EXPONENT: f64 = 0.99;

/// How much work it is by itself to keep a core busy: some 60 µs.
const ROUNDS: u32 = 1_000;

/// Warehouses of TPC-C by itself.
const TPCC_WAREHOUSES: u32 = 2;

/// Who mints by itself: so many that none has two mints in flight. A mint that strays loses its
/// place, and a later one of the same account is then invalid.
const NFT_ACCOUNTS: u32 = 10_000;

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
    /// How many lines of an order come from another warehouse, the first ones, where `remote` or a
    /// spread decides of the whole order: one, if not given, as in the generators that other
    /// deterministic databases are measured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_lines: Option<u8>,
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
            remote_lines: None,
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
        let payments = self.payments(1_000, Skew::Uniform);
        let chain_id = self.chain_id;
        let declared = self.footprint == Some(FootprintFrom::Declared);
        Ok(match self.workload {
            WorkloadName::Erc20 => {
                let tokens = self.tokens.unwrap_or(1);
                let options = Erc20Options { payments, chain_id };
                let erc20 = match self.spread {
                    None => Erc20::with_tokens(options, tokens)?,
                    Some(spread) => Erc20::spread(options, spread)?,
                };
                Box::new(if declared { erc20.declaring()? } else { erc20 })
            }
            WorkloadName::Ether => {
                let options = EtherOptions { payments, chain_id, declared };
                Box::new(Ether::new(options, self.spread)?)
            }
            WorkloadName::Swap => {
                let (accounts, pools) = (payments, self.tokens.unwrap_or(1));
                Box::new(Swap::new(SwapOptions { accounts, pools, chain_id, declared })?)
            }
            WorkloadName::Nft if declared => {
                let (workload, footprint) = (self.workload, FootprintFrom::Declared);
                let reason = "the slot that each mint writes depends on those before it";
                return Err(BadWorkload::Footprint { workload, footprint, reason });
            }
            WorkloadName::Nft => {
                // Every mint is tried more than once, and its account's next one would overtake it.
                let accounts = self.payments(NFT_ACCOUNTS, Skew::Turns);
                Box::new(Nft::new(NftOptions { accounts, chain_id })?)
            }
            WorkloadName::LuaPay => {
                let signed = self.signed.unwrap_or(false);
                let options = LuaPayOptions { payments, signed, declared };
                Box::new(match self.spread {
                    None => LuaPay::new(options)?,
                    Some(spread) => LuaPay::spread(options, spread)?,
                })
            }
            WorkloadName::NativeTransfer => self.native(match self.spread {
                None => NativeTransfer::new(payments)?,
                Some(spread) => NativeTransfer::one_spread(payments, spread)?,
            })?,
            WorkloadName::NativeTransfer4 => self.native(match self.spread {
                None => NativeTransfer::two(payments)?,
                Some(spread) => NativeTransfer::spread(payments, spread)?,
            })?,
            WorkloadName::Smallbank => {
                let options = SmallBankOptions {
                    customers: self.payments(10_000, Skew::Uniform),
                    read: self.read,
                    declared: self.told_by_arguments()?,
                };
                Box::new(SmallBank::new(options, self.spread)?)
            }
            WorkloadName::YcsbA => self.ycsb(Letter::A)?,
            WorkloadName::YcsbB => self.ycsb(Letter::B)?,
            WorkloadName::YcsbC => self.ycsb(Letter::C)?,
            WorkloadName::YcsbD => self.ycsb(Letter::D)?,
            WorkloadName::YcsbE => self.ycsb(Letter::E)?,
            WorkloadName::YcsbF => self.ycsb(Letter::F)?,
            WorkloadName::Ycsb10 => self.ycsb(Letter::Many(self.keys.unwrap_or(10)))?,
            WorkloadName::Nothing => self.compute(0)?,
            WorkloadName::Cpu => self.compute(self.rounds.unwrap_or(ROUNDS))?,
            WorkloadName::Tpcc => self.tpcc(Mix::Full)?,
            WorkloadName::TpccNp => self.tpcc(Mix::NewOrderPayment)?,
        })
    }

    fn native(&self, workload: NativeTransfer) -> Result<Box<dyn Workload>, BadWorkload> {
        let declared = self.told_by_arguments()?;
        Ok(Box::new(if declared { workload.declaring() } else { workload }))
    }

    fn ycsb(&self, letter: Letter) -> Result<Box<dyn Workload>, BadWorkload> {
        let usual = Skew::Zipf { exponent: YCSB_EXPONENT };
        let (records, bytes) = match letter {
            Letter::Many(_) => (self.payments(100_000, Skew::Uniform), 10),
            _ => (self.payments(10_000, usual), 100),
        };
        let options = YcsbOptions {
            letter,
            records,
            read: self.read.unwrap_or_else(|| letter.read()),
            field_bytes: self.field_bytes.unwrap_or(bytes),
            declared: self.told_by_arguments()?,
        };
        Ok(Box::new(Ycsb::new(options, self.spread)?))
    }

    fn compute(&self, rounds: u32) -> Result<Box<dyn Workload>, BadWorkload> {
        let declared = self.told_by_arguments()?;
        Ok(Box::new(Compute::new(ComputeOptions { seed: self.seed, rounds, declared })?))
    }

    fn tpcc(&self, mix: Mix) -> Result<Box<dyn Workload>, BadWorkload> {
        let declared = match (self.footprint, mix) {
            (Some(footprint @ FootprintFrom::Declared), Mix::Full) => {
                let reason = "those of order-status, delivery and stock-level depend on the state";
                return Err(BadWorkload::Footprint { workload: self.workload, footprint, reason });
            }
            (Some(FootprintFrom::Discovered), Mix::Full) => false,
            _ => self.told_by_arguments()?,
        };
        let options = TpccOptions {
            seed: self.seed,
            mix,
            warehouses: self.warehouses.unwrap_or(TPCC_WAREHOUSES),
            items: self.items.unwrap_or(100_000),
            customers: self.customers.unwrap_or(3_000),
            conflict: self.conflict.unwrap_or(0),
            remote: self.remote.map_or(Remote::Lines, Remote::Share),
            remote_lines: self.remote_lines.unwrap_or(1),
            declared,
        };
        Ok(Box::new(Tpcc::new(options, self.spread)?))
    }

    /// Whether footprints are to be declared that admission can take from the arguments otherwise.
    fn told_by_arguments(&self) -> Result<bool, BadWorkload> {
        match self.footprint {
            None => Ok(false),
            Some(FootprintFrom::Declared) => Ok(true),
            Some(footprint) => {
                let reason = "their arguments tell them";
                Err(BadWorkload::Footprint { workload: self.workload, footprint, reason })
            }
        }
    }

    fn payments(&self, accounts: u32, skew: Skew) -> PaymentOptions {
        PaymentOptions {
            seed: self.seed,
            accounts: self.accounts.unwrap_or(accounts),
            skew: self.skew.unwrap_or(skew),
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
                return Err(BadWorkload::Together { one: "multi-partition", other, reason });
            }
        }
        if self.remote_lines.is_some() && self.remote.is_none() && self.spread.is_none() {
            let needs = "`remote`, or transactions that touch several partitions";
            return Err(BadWorkload::Alone { knob: "remote_lines", needs });
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
            ("remote_lines", text(self.remote_lines)),
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

#[cfg(test)]
mod tests;
