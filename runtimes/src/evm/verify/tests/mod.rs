//! The chain of the execution APIs' tests, and what is wrong with it once it is changed.

mod genesis;
mod refused;
mod requests;

use std::path::{Path, PathBuf};

use super::*;

/// Where the tests are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/execution-apis/tests");
    if !path.exists() {
        eprintln!("skipped: the tests of the execution APIs are not on this machine");
        return None;
    }
    Some(path)
}

fn chain(data: &Path) -> (Genesis, Vec<Bytes>) {
    let file = |name: &str| std::fs::read(data.join(name)).unwrap();
    let genesis = Genesis::read(&file("genesis.json")).unwrap();
    (genesis, split(&file("chain.rlp")).unwrap())
}

fn verifier(genesis: &Genesis, checks_roots: bool) -> Verifier {
    let Genesis { spec, accounts, header } = genesis.clone();
    Verifier::new(spec, &accounts, header, checks_roots).unwrap()
}

#[test]
fn a_chain_of_every_fork_holds_what_its_headers_say() {
    let Some(data) = data() else { return };
    let (genesis, blocks) = chain(&data);
    for checks_roots in [true, false] {
        let mut verifier = verifier(&genesis, checks_roots);
        let mut transactions = 0;
        for raw in &blocks {
            let verified = verifier.take(raw).unwrap_or_else(|refused| panic!("{refused}"));
            transactions += verified.block.transactions.len();
        }
        assert_eq!((verifier.head().number, transactions), (54, 249));
        assert_eq!(verifier.spec().terminal_difficulty, None);
        assert_eq!(verifier.trie().root() == verifier.head().state_root, checks_roots);
    }
}
