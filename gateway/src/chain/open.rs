//! Opening the index.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parsec_ethereum::Block;

use super::HEAD_KEY;
use super::error::ChainError;
use super::head::Head;
use super::limits::{CACHE_BYTES, JOURNAL_BYTES_MAX};
use super::postings::{Piece, Tail};
use super::view::{Tables, View, read_head};
use super::write::{decode_all, write_block};

/// Version of what is stored.
const FORMAT_VERSION: u64 = 1;
const FORMAT_KEY: &[u8] = b"format";
const SEED_KEY: &[u8] = b"seed";
const MIB: u64 = 1_024 * 1_024;

/// The tables in a directory.
pub(super) fn tables(directory: &Path) -> Result<(Database, Keyspace, Tables), ChainError> {
    let path = directory.to_owned();
    let engine_error = |error| ChainError::Engine { path: path.clone(), source: Arc::new(error) };
    let database = Database::builder(directory)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(2)
        .open()
        .map_err(engine_error)?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(16 * MIB);
    let keyspace = |name| database.keyspace(name, options).map_err(engine_error);
    let meta = keyspace("meta")?;
    let (blocks, postings) = (keyspace("blocks")?, keyspace("postings")?);
    let mut tables = Tables { directory: path.clone(), blocks, postings, seed: 0 };
    tables.seed = claim(&tables, &meta)?;
    Ok((database, meta, tables))
}

/// The seed of fingerprints, after a check of the format. An empty index gets both.
fn claim(tables: &Tables, meta: &Keyspace) -> Result<u64, ChainError> {
    let engine_error = |error| tables.engine_error(error);
    match number(tables, meta, FORMAT_KEY)? {
        Some(FORMAT_VERSION) => {
            number(tables, meta, SEED_KEY)?.ok_or_else(|| tables.damaged("the seed is missing"))
        }
        Some(version) => Err(foreign(
            tables,
            format!("its format is {version}, this version of Parsec reads {FORMAT_VERSION}"),
        )),
        None => {
            let seed = RandomState::new().build_hasher().finish();
            // ORDER: an index with a format has a seed.
            meta.insert(SEED_KEY, seed.to_be_bytes()).map_err(engine_error)?;
            meta.insert(FORMAT_KEY, FORMAT_VERSION.to_be_bytes()).map_err(engine_error)?;
            Ok(seed)
        }
    }
}

fn foreign(tables: &Tables, found: String) -> ChainError {
    ChainError::Foreign { path: tables.directory.clone(), found }
}

/// A number of the meta records.
pub(super) fn number(
    tables: &Tables,
    meta: &Keyspace,
    key: &[u8],
) -> Result<Option<u64>, ChainError> {
    let Some(bytes) = meta.get(key).map_err(|error| tables.engine_error(error))? else {
        return Ok(None);
    };
    let number = bytes[..].try_into().map(u64::from_be_bytes);
    number.map(Some).map_err(|_| tables.damaged("a number of the meta records"))
}

pub(super) fn write_genesis(
    database: &Database,
    tables: &Tables,
    meta: &Keyspace,
    genesis: &Block,
) -> Result<u64, ChainError> {
    let head = Head::of(genesis)?;
    if head.number != 0 {
        return Err(ChainError::Gap { number: head.number, head: 0 });
    }
    let mut batch = database.batch().durability(Some(PersistMode::Buffer));
    write_block(&mut batch, tables, &head, genesis)?;
    batch.insert(meta, HEAD_KEY, head.number.to_be_bytes());
    batch.commit().map_err(|error| tables.engine_error(error))?;
    Ok(head.number)
}

/// The view of what is stored, with the postings that are not.
pub(super) fn view(
    database: &Database,
    tables: &Tables,
    head: u64,
    posted: Option<u64>,
) -> Result<View, ChainError> {
    let snapshot = database.snapshot();
    let missing = |number: u64| tables.damaged(format!("block {number} is missing"));
    let latest = read_head(tables, &snapshot, head)?.ok_or_else(|| missing(head))?;
    let tables = tables.clone();
    let mut view = View { tables, snapshot, tail: Tail::default(), head: latest };
    for number in posted.map_or(0, |posted| posted + 1)..=head {
        let block = view.block(number)?.ok_or_else(|| missing(number))?;
        view.tail.push(Piece::of(&block, &decode_all(&block)?, view.tables.seed));
    }
    Ok(view)
}

pub(super) fn check_genesis(view: &View, genesis: &Block) -> Result<(), ChainError> {
    let found = view.header(0)?.ok_or_else(|| view.tables.damaged("block 0 is missing"))?;
    match found.hash.0 == genesis.hash {
        true => Ok(()),
        false => Err(foreign(&view.tables, format!("its chain begins with {}", found.hash))),
    }
}
