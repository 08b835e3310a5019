//! Messages of clients and of hosts, both ways.
//!
//! Input: a byte that chooses the kind of message, then its archive.

use parsec_protocol::message::{ClientMessage, PeerHello, PeerMessage, ServerMessage};
use parsec_protocol::{HostSlices, PartitionMap, Transaction};

use crate::encoded::{Encoded, decode};
use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "messages", run, seeds };

fn run(input: &[u8]) -> Verdict {
    let Some((kind, archive)) = input.split_first() else { return Verdict::Refused };
    let accepted = match kind % 5 {
        0 => from_client(archive),
        1 => decode::<ServerMessage>(archive).is_some(),
        2 => decode::<PeerMessage>(archive).is_some(),
        3 => decode::<PeerHello>(archive).is_some(),
        _ => decode::<HostSlices>(archive).is_some(),
    };
    if accepted { Verdict::Accepted } else { Verdict::Refused }
}

/// A client's transactions are checked only at admission: whatever is done with them before must
/// bear any.
fn from_client(archive: &[u8]) -> bool {
    let Some(message) = decode::<ClientMessage>(archive) else { return false };
    if let ClientMessage::Submit { transactions, .. } = &message {
        transactions.iter().for_each(of_a_transaction);
    }
    true
}

fn of_a_transaction(transaction: &Transaction) {
    assert_eq!(transaction.content_id(), transaction.clone().content_id());
    let Some(footprint) = &transaction.footprint else { return };
    if transaction.check().is_err() {
        return;
    }
    let map = PartitionMap::even(7).unwrap();
    assert!(map.choose_home(&transaction.content_id(), footprint).0 < map.len());
    for (index, access) in footprint.indexed() {
        assert_eq!(footprint.find(&access.key), Some(usize::from(index)));
        assert!(footprint.covers(&access.key, access.mode));
        assert!(map.owner(&access.key).0 < map.len());
    }
    assert_eq!(footprint.union(footprint).as_ref(), Ok(footprint));
}

fn seeds() -> Vec<Seed> {
    let seed = |name, kind: u8, archive: Vec<u8>| Seed::new(name, [vec![kind], archive].concat());
    let mut seeds = Vec::new();
    seeds.extend(samples::client_messages().into_iter().map(|(n, m)| seed(n, 0, m.encoded())));
    seeds.extend(samples::server_messages().into_iter().map(|(n, m)| seed(n, 1, m.encoded())));
    seeds.extend(samples::peer_messages().into_iter().map(|(n, m)| seed(n, 2, m.encoded())));
    seeds.push(seed("peer-hello", 3, samples::peer_hello().encoded()));
    seeds.push(seed("host-slices", 4, samples::host_slices().encoded()));
    seeds
}
