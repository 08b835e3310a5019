//! Taking the state out, and bringing one in.

use std::io::{Read as _, Write as _};

use alloy_primitives::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use parsec_gateway::rpc::{INTERNAL_ERROR, RpcError};

use super::{Family, stopped};
use crate::backend::DevBackend;
use crate::chain::Dump;

/// Most bytes of a dump that is brought in, unpacked.
const DUMP_BYTES_MAX: u64 = 1 << 30;
/// What packed content begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

pub(super) fn add(family: &mut Family) {
    // The parameter says whether past states are wanted, too: they are not dumped.
    family.act(
        &["anvil_dumpState", "hardhat_dumpState"],
        async |backend: DevBackend, (_,): (Option<bool>,)| {
            let dump = backend.look(|chain| chain.dump());
            let packed = tokio::task::spawn_blocking(move || pack(&dump)).await;
            let failed = |reason: String| RpcError::new(INTERNAL_ERROR, reason);
            packed.map_err(|error| failed(error.to_string()))?.map_err(failed)
        },
    );
    family.act(
        &["anvil_loadState", "hardhat_loadState"],
        async |backend: DevBackend, (packed,): (Bytes,)| {
            let change = backend.change(move |chain, _| {
                let dump = unpack(&packed);
                Ok(dump.map(|dump| chain.load(&dump)))
            });
            let loaded = change.await.map_err(stopped)?;
            loaded.map(|()| true).map_err(RpcError::invalid_params)
        },
    );
}

fn pack(dump: &Dump) -> Result<Bytes, String> {
    let json = serde_json::to_vec(dump).map_err(|error| error.to_string())?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&json).map_err(|error| error.to_string())?;
    packer.finish().map(Bytes::from).map_err(|error| error.to_string())
}

/// Reads a dump, packed or as the JSON that it is.
fn unpack(bytes: &[u8]) -> Result<Dump, String> {
    let read = match bytes.starts_with(&GZIP) {
        true => {
            let mut json = Vec::new();
            let mut packed = GzDecoder::new(bytes).take(DUMP_BYTES_MAX);
            packed.read_to_end(&mut json).map_err(|error| format!("a damaged dump: {error}"))?;
            serde_json::from_slice(&json)
        }
        false => serde_json::from_slice(bytes),
    };
    read.map_err(|error| format!("not a dump of a state: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_dump_is_refused() {
        for bytes in [&b""[..], b"{", b"{}", &GZIP, b"\x1f\x8b\x08\x00garbage", &[0xff; 64]] {
            assert!(unpack(bytes).is_err(), "{bytes:?}");
        }
        let empty = unpack(br#"{"accounts":{},"block":null,"blocks":[]}"#).unwrap();
        assert_eq!(unpack(&pack(&empty).unwrap()), Ok(empty));
    }
}
