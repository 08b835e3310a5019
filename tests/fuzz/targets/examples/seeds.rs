//! Writes the valid seeds of every target to `tests/fuzz/seeds`, beside what else is there.

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for target in parsec_fuzz_targets::TARGETS {
        let directory = root.join(target.name);
        std::fs::create_dir_all(&directory)?;
        for seed in (target.seeds)() {
            std::fs::write(directory.join(seed.name), seed.bytes)?;
        }
    }
    Ok(())
}
