//! The workloads by name, and which knobs each has.

use serde::{Deserialize, Serialize};

use crate::draw::BadWorkload;

/// A workload, by the name that is given on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadName {
    /// Signed transfers of an OpenZeppelin ERC-20: one token for all, or many.
    Erc20,
    /// Signed transfers of Ether.
    Ether,
    /// Signed swaps in pools of two tokens in the manner of Uniswap v2: all of a pool's meet in its
    /// reserves.
    Swap,
    /// Signed mints of an OpenZeppelin ERC-721 that numbers its tokens: all of them meet in one
    /// counter, and where each writes depends on it.
    Nft,
    /// Calls of PArSEC's pay contract in Lua.
    LuaPay,
    /// Unsigned native transfers: 2 keys.
    NativeTransfer,
    /// Unsigned native programs of two transfers: 4 keys.
    #[serde(rename = "native-transfer-4")]
    NativeTransfer4,
    /// SmallBank: six procedures on checking and savings accounts, each as often as the others.
    Smallbank,
    /// YCSB A: half reads, half updates.
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates.
    YcsbB,
    /// YCSB C: reads.
    YcsbC,
    /// YCSB D: 95 % reads of late records, 5 % inserts.
    YcsbD,
    /// YCSB E: 95 % scans, 5 % inserts.
    YcsbE,
    /// YCSB F: half reads, half read-modify-writes.
    YcsbF,
    /// YCSB as deterministic databases are measured: 10 records in each transaction, each read or
    /// updated.
    Ycsb10,
    /// TPC-C: all five transactions.
    Tpcc,
    /// TPC-C as deterministic databases are measured: new-order and payment, each half.
    TpccNp,
    /// Transactions that do nothing.
    Nothing,
    /// Transactions that keep a core busy.
    Cpu,
}

impl WorkloadName {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Erc20,
        Self::Ether,
        Self::Swap,
        Self::Nft,
        Self::LuaPay,
        Self::NativeTransfer,
        Self::NativeTransfer4,
        Self::Smallbank,
        Self::YcsbA,
        Self::YcsbB,
        Self::YcsbC,
        Self::YcsbD,
        Self::YcsbE,
        Self::YcsbF,
        Self::Ycsb10,
        Self::Tpcc,
        Self::TpccNp,
        Self::Nothing,
        Self::Cpu,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Erc20 => "erc20",
            Self::Ether => "ether",
            Self::Swap => "swap",
            Self::Nft => "nft",
            Self::LuaPay => "lua-pay",
            Self::NativeTransfer => "native-transfer",
            Self::NativeTransfer4 => "native-transfer-4",
            Self::Smallbank => "smallbank",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
            Self::YcsbD => "ycsb-d",
            Self::YcsbE => "ycsb-e",
            Self::YcsbF => "ycsb-f",
            Self::Ycsb10 => "ycsb10",
            Self::Tpcc => "tpcc",
            Self::TpccNp => "tpcc-np",
            Self::Nothing => "nothing",
            Self::Cpu => "cpu",
        }
    }

    /// What it does, for people, in a few lines.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Erc20 => {
                "Signed transfers of an OpenZeppelin ERC-20 between random accounts. With several \
                 tokens, each account holds one of them, and pays those who hold the same."
            }
            Self::Ether => "Signed transfers of Ether between random accounts.",
            Self::Swap => {
                "Signed swaps in pools of two OpenZeppelin ERC-20s, in the manner of Uniswap v2, \
                 either way. All swaps in one pool write its reserves."
            }
            Self::Nft => {
                "Signed mints of an OpenZeppelin ERC-721 that numbers its tokens: all write one \
                 counter, and the key that each writes depends on it. Accounts take turns."
            }
            Self::LuaPay => {
                "Calls of PArSEC's pay contract in Lua: unsigned, or signed in its own manner \
                 (BIP-340)."
            }
            Self::NativeTransfer => "Unsigned native transfers between random accounts: 2 keys.",
            Self::NativeTransfer4 => "Unsigned native programs of two transfers: 4 keys.",
            Self::Smallbank => {
                "SmallBank as a built-in procedure: balance, deposit, savings, amalgamate, check \
                 and payment, each as often as the others. What lacks funds reverts."
            }
            Self::YcsbA => "YCSB A, one record in each transaction: 50 % reads, 50 % updates.",
            Self::YcsbB => "YCSB B, one record in each transaction: 95 % reads, 5 % updates.",
            Self::YcsbC => "YCSB C, one record in each transaction: reads only.",
            Self::YcsbD => {
                "YCSB D, one record in each transaction: 95 % reads of the latest records, 5 % \
                 inserts."
            }
            Self::YcsbE => {
                "YCSB E: 95 % scans of up to 100 records with consecutive numbers, 5 % inserts."
            }
            Self::YcsbF => {
                "YCSB F, one record in each transaction: 50 % reads, 50 % read-modify-writes."
            }
            Self::Ycsb10 => {
                "YCSB as deterministic databases are measured: 10 records of 10 times 10 bytes in \
                 each transaction, of which 80 % are read and 20 % updated."
            }
            Self::Tpcc => {
                "TPC-C with all five transactions in the mix of the specification, as built-in \
                 procedures."
            }
            Self::TpccNp => {
                "TPC-C as deterministic databases are measured: half new-orders, half payments."
            }
            Self::Nothing => "Transactions that do nothing: what the order alone costs.",
            Self::Cpu => "Transactions that touch nothing and keep a core busy.",
        }
    }

    /// Whether its transactions are signed whatever its knobs say.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Erc20 | Self::Ether | Self::Swap | Self::Nft)
    }

    /// The knobs that it has beside the seed.
    #[must_use]
    pub fn knobs(self) -> &'static [&'static str] {
        match self {
            Self::Erc20 => &["accounts", "skew", "conflict", "spread", "tokens", "footprint"],
            Self::Ether => &["accounts", "skew", "conflict", "spread", "footprint"],
            Self::Swap => &["accounts", "skew", "tokens", "footprint"],
            Self::Nft => &["accounts", "skew", "footprint"],
            Self::LuaPay => &["accounts", "skew", "conflict", "spread", "footprint", "signed"],
            Self::NativeTransfer | Self::NativeTransfer4 => {
                &["accounts", "skew", "conflict", "spread", "footprint"]
            }
            Self::Smallbank => &["accounts", "skew", "conflict", "spread", "read", "footprint"],
            Self::YcsbA | Self::YcsbB | Self::YcsbC | Self::YcsbF => {
                &["accounts", "skew", "conflict", "read", "footprint", "field_bytes"]
            }
            Self::YcsbD => &["accounts", "skew", "read", "footprint", "field_bytes"],
            Self::YcsbE => &["accounts", "skew", "read", "footprint", "field_bytes"],
            Self::Ycsb10 => &[
                "accounts",
                "skew",
                "conflict",
                "spread",
                "read",
                "footprint",
                "field_bytes",
                "keys",
            ],
            Self::Tpcc | Self::TpccNp => &[
                "warehouses",
                "items",
                "customers",
                "conflict",
                "spread",
                "remote",
                "remote_lines",
                "footprint",
            ],
            Self::Nothing => &["footprint"],
            Self::Cpu => &["rounds", "footprint"],
        }
    }

    /// These knobs, for people.
    pub(crate) fn knob_names(self) -> String {
        self.knobs().join(", ")
    }
}

impl std::fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for WorkloadName {
    type Err = BadWorkload;

    fn from_str(text: &str) -> Result<Self, BadWorkload> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| BadWorkload::Name { text: text.to_owned() })
    }
}
