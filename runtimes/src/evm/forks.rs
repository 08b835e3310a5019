//! The forks of Ethereum: their names, their rules, and when they begin on a chain.

use alloy_eips::eip7840::BlobParams;
use revm::primitives::hardfork::SpecId;
use rkyv::{Archive, Deserialize, Serialize};

/// Most forks that a chain may have after the one that it begins with.
pub const FORKS_MAX: usize = 64;

/// The rules that a fork brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The rules of execution.
    pub spec: SpecId,
    /// How many blobs a block may have and what they cost, from Cancun on.
    pub blobs: Option<BlobParams>,
    /// Its place among all forks.
    place: usize,
}

/// Every fork that is final, in order, by the name that revm has for it, and those that others do.
/// The last two change nothing but the parameters of blobs (EIP-7892).
const FORKS: [(&[&str], SpecId, Option<BlobParams>); 16] = [
    (&["Frontier"], SpecId::FRONTIER, None),
    (&["Homestead"], SpecId::HOMESTEAD, None),
    (&["Tangerine", "TangerineWhistle", "EIP150"], SpecId::TANGERINE, None),
    (&["Spurious", "SpuriousDragon", "EIP158"], SpecId::SPURIOUS_DRAGON, None),
    (&["Byzantium"], SpecId::BYZANTIUM, None),
    // Constantinople itself was replaced before it began on mainnet.
    (&["Petersburg", "ConstantinopleFix", "Constantinople"], SpecId::PETERSBURG, None),
    (&["Istanbul"], SpecId::ISTANBUL, None),
    (&["Berlin"], SpecId::BERLIN, None),
    (&["London"], SpecId::LONDON, None),
    (&["Merge", "Paris"], SpecId::MERGE, None),
    (&["Shanghai"], SpecId::SHANGHAI, None),
    (&["Cancun"], SpecId::CANCUN, Some(BlobParams::cancun())),
    (&["Prague"], SpecId::PRAGUE, Some(BlobParams::prague())),
    (&["Osaka"], SpecId::OSAKA, Some(BlobParams::osaka())),
    (&["BPO1"], SpecId::OSAKA, Some(BlobParams::bpo1())),
    (&["BPO2"], SpecId::OSAKA, Some(BlobParams::bpo2())),
];

impl Fork {
    /// The fork of that name, in any case: "Frontier" to "Osaka", "BPO1" and "BPO2"; also by other
    /// names that Ethereum's tools have ("Paris", "EIP158"). None if there is none, or it is not
    /// final.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is_it = |names: &&[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let place = FORKS.iter().position(|(names, ..)| is_it(names))?;
        let (_, spec, blobs) = FORKS[place];
        Some(Self { spec, blobs, place })
    }

    /// The latest fork of mainnet that changed the rules of execution.
    #[must_use]
    pub fn latest() -> Self {
        Self::named("Osaka").expect("Osaka is in the table")
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        FORKS[self.place].0[0]
    }
}

impl PartialOrd for Fork {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fork {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

/// A fork that begins some time after the chain did.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ForkBegin {
    /// The name of the fork.
    pub fork: String,
    /// The first block with its rules.
    pub at: ForkAt,
}

/// From which block on a fork's rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ForkAt {
    /// The block with this number.
    Block(u64),
    /// The first block that is not before this time, seconds since 1970.
    Time(u64),
}

impl ForkAt {
    /// Whether a block of that number and time has begun it.
    #[must_use]
    pub fn is_reached(self, number: u64, timestamp: u64) -> bool {
        match self {
            Self::Block(first) => number >= first,
            Self::Time(first) => timestamp >= first,
        }
    }

    /// Whether what begins here may come after what begins at `earlier`. A chain changes from
    /// numbers to times once.
    fn may_follow(self, earlier: Self) -> bool {
        match (earlier, self) {
            (Self::Block(a), Self::Block(b)) | (Self::Time(a), Self::Time(b)) => a <= b,
            (Self::Block(_), Self::Time(_)) => true,
            (Self::Time(_), Self::Block(_)) => false,
        }
    }
}

/// The last of what has begun by that block, if anything has.
pub(super) fn begun<T>(later: &[(ForkAt, T)], number: u64, timestamp: u64) -> Option<&T> {
    later.iter().rev().find(|(at, _)| at.is_reached(number, timestamp)).map(|(_, what)| what)
}

/// The fork that a chain begins with and those that come later, in order.
///
/// # Errors
/// Says for people what is wrong: an unknown name, or an order that is none.
pub(super) fn schedule(
    first: &str,
    later: &[ForkBegin],
) -> Result<(Fork, Vec<(ForkAt, Fork)>), String> {
    let named = |name: &str| {
        Fork::named(name).ok_or_else(|| match SpecId::AMSTERDAM {
            spec if name.eq_ignore_ascii_case(spec.into()) => format!("{name} is not final yet"),
            _ => format!("no fork is called {name:?}"),
        })
    };
    if later.len() > FORKS_MAX {
        return Err(format!("more than {FORKS_MAX} forks"));
    }
    let first = named(first)?;
    let mut forks: Vec<(ForkAt, Fork)> = Vec::with_capacity(later.len());
    for begin in later {
        let fork = named(&begin.fork)?;
        let (last_at, last) = forks.last().map_or((None, first), |(at, last)| (Some(*at), *last));
        if fork <= last {
            return Err(format!("the fork {} can't come after {}", fork.name(), last.name()));
        }
        if last_at.is_some_and(|last| !begin.at.may_follow(last)) {
            let (fork, last) = (fork.name(), last.name());
            return Err(format!("the fork {fork} begins before {last}, which it comes after"));
        }
        forks.push((begin.at, fork));
    }
    Ok((first, forks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(fork: &str, at: ForkAt) -> ForkBegin {
        ForkBegin { fork: fork.to_owned(), at }
    }

    #[test]
    fn forks_are_known_by_all_their_names() {
        for (name, spec) in [
            ("Frontier", SpecId::FRONTIER),
            ("EIP150", SpecId::TANGERINE),
            ("SpuriousDragon", SpecId::SPURIOUS_DRAGON),
            ("ConstantinopleFix", SpecId::PETERSBURG),
            ("paris", SpecId::MERGE),
            ("osaka", SpecId::OSAKA),
            ("BPO2", SpecId::OSAKA),
        ] {
            assert_eq!(Fork::named(name).unwrap().spec, spec, "{name}");
        }
        for name in ["", "Latest", "Amsterdam", "Osaka "] {
            assert_eq!(Fork::named(name), None, "{name}");
        }
        for (names, spec, _) in &FORKS[..14] {
            assert_eq!(<&str>::from(*spec), names[0], "the first name is revm's");
        }
        assert_eq!(Fork::latest().name(), "Osaka");
        assert!(FORKS.is_sorted_by_key(|(_, spec, _)| *spec));
    }

    #[test]
    fn blobs_have_the_parameters_of_their_eips() {
        // Target, most in a block, most in a transaction, update fraction: EIP-4844, 7691, 7594 and
        // 7892.
        for (name, expected) in [
            ("Shanghai", None),
            ("Cancun", Some((3, 6, 6, 3_338_477))),
            ("Prague", Some((6, 9, 9, 5_007_716))),
            ("Osaka", Some((6, 9, 6, 5_007_716))),
            ("BPO1", Some((10, 15, 6, 8_346_193))),
            ("BPO2", Some((14, 21, 6, 11_684_671))),
        ] {
            let blobs = Fork::named(name).unwrap().blobs.map(|b| {
                (b.target_blob_count, b.max_blob_count, b.max_blobs_per_tx, b.update_fraction)
            });
            assert_eq!(blobs, expected, "{name}");
        }
    }

    #[test]
    fn the_rules_change_where_the_schedule_says() {
        let later = [
            begin("Berlin", ForkAt::Block(10)),
            begin("London", ForkAt::Block(10)),
            begin("Merge", ForkAt::Block(20)),
            begin("Cancun", ForkAt::Time(1_000)),
            begin("Osaka", ForkAt::Time(2_000)),
        ];
        let (first, later) = schedule("Istanbul", &later).unwrap();
        let name = |number, time| begun(&later, number, time).unwrap_or(&first).name();
        assert_eq!(name(0, 0), "Istanbul");
        assert_eq!(name(9, 999), "Istanbul");
        assert_eq!(name(10, 999), "London");
        assert_eq!(name(20, 999), "Merge");
        assert_eq!(name(21, 1_000), "Cancun");
        assert_eq!(name(22, u64::MAX), "Osaka");
    }

    #[test]
    fn a_schedule_that_is_none_is_refused() {
        let (block, time) = (ForkAt::Block, ForkAt::Time);
        for (first, later, says) in [
            ("Lundon", vec![], "Lundon"),
            ("Amsterdam", vec![], "not final"),
            ("London", vec![begin("Amsterdam", time(1))], "not final"),
            ("London", vec![begin("London", block(1))], "can't come after"),
            ("London", vec![begin("Berlin", block(1))], "can't come after"),
            ("BPO2", vec![begin("BPO1", time(1))], "can't come after"),
            ("Berlin", vec![begin("London", block(2)), begin("Merge", block(1))], "begins before"),
            ("Berlin", vec![begin("London", time(2)), begin("Merge", block(9))], "begins before"),
            ("Berlin", vec![begin("London", time(2)), begin("Merge", time(1))], "begins before"),
            ("Berlin", vec![begin("London", time(2)); FORKS_MAX + 1], "more than"),
        ] {
            let error = schedule(first, &later).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
