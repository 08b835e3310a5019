//! Transactions that touch nothing: what the order alone costs, and what many cores do for work
//! that no one waits for.

use parsec_runtimes::native::{Program, ROUNDS_MAX};

use super::{Audit, BuildProgress, LoadTransaction, Stage, Workload, build, salt};
use crate::draw::BadWorkload;

/// What a [`Compute`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeOptions {
    /// The seed: it makes the transactions different from those of others.
    pub seed: u64,
    /// BLAKE3 hashes of 32 bytes in each transaction; none, and it does nothing at all.
    pub rounds: u32,
    /// Whether transactions declare their footprints, which are empty.
    pub declared: bool,
}

/// Native programs without a key.
#[derive(Debug)]
pub struct Compute {
    options: ComputeOptions,
    made: u64,
}

impl Compute {
    /// The workload with these options.
    ///
    /// # Errors
    /// [`BadWorkload`] if the work is more than one transaction may do.
    pub fn new(options: ComputeOptions) -> Result<Self, BadWorkload> {
        match u64::from(options.rounds) {
            rounds if rounds <= ROUNDS_MAX => Ok(Self { options, made: 0 }),
            value => {
                let allowed = format!("at most {ROUNDS_MAX}");
                Err(BadWorkload::Value { knob: "rounds", value, allowed })
            }
        }
    }
}

impl Workload for Compute {
    fn name(&self) -> String {
        let ComputeOptions { seed, rounds, .. } = self.options;
        match rounds {
            0 => format!("nothing (seed {seed})"),
            rounds => format!("work ({rounds} rounds, seed {seed})"),
        }
    }

    fn setup(&self) -> Vec<Stage> {
        Vec::new()
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let ComputeOptions { seed, rounds, declared } = self.options;
        let next = || {
            self.made += 1;
            self.made - 1
        };
        build(count, progress, next, |number| {
            let program = match rounds {
                0 => Program::new(),
                rounds => Program::new().work(rounds),
            };
            let mut transaction = program.into_transaction(salt(seed, "compute load", number));
            transaction.footprint = declared.then(Default::default);
            LoadTransaction { sender: None, transaction }
        })
    }

    /// There is nothing to check.
    fn audit(&self) -> Audit {
        Audit::of(Vec::new(), |_, _| Ok(()))
    }
}
