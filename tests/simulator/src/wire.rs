//! Messages in a few words, for traces.

use parsec_protocol::message::{Answer, ClientMessage, PeerMessage, Query, ServerMessage, Verdict};
use parsec_protocol::{Push, PushKind, Receipt};

/// The first characters of an id.
pub(crate) fn brief(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(10).collect()
}

pub(crate) fn describe(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Slices(slices) => {
            let entries: usize = slices.slices.iter().map(|slice| slice.entries.len()).sum();
            format!("slices of batch {} ({entries} entries)", slices.sequence)
        }
        PeerMessage::Epoch(record) => {
            format!("{} of {} transactions", record.number, record.transactions())
        }
        PeerMessage::ResendReceipts { from } => format!("resend receipts from {from}"),
        PeerMessage::Progress(statuses) => {
            let each = statuses.iter().map(|s| format!("{} {}", s.partition, s.applied));
            format!("progress: {}", each.collect::<Vec<_>>().join(", "))
        }
        PeerMessage::Receipts { partition, receipts } => {
            format!(
                "receipts of {partition}: {}",
                list(receipts, |receipt| describe_receipt(receipt))
            )
        }
        PeerMessage::Pushes(pushes) => format!("pushes: {}", list(pushes, describe_push)),
        PeerMessage::Watermarks { resume, partitions } => {
            let each = partitions
                .iter()
                .map(|s| format!("{} applied {} durable {}", s.partition, s.applied, s.durable));
            let what = if *resume { "resume" } else { "watermarks" };
            format!("{what}: {}", each.collect::<Vec<_>>().join(", "))
        }
        PeerMessage::Query { number, query } => {
            format!("query {number}: {}", describe_query(query))
        }
        PeerMessage::Answer { number, answer } => {
            let what = match answer {
                Answer::Values(values) => format!("{} values", values.len()),
                Answer::Receipt(receipt) => format!("receipt: {}", receipt.is_some()),
                Answer::Digests(_) => "digests".into(),
                Answer::Outcomes(outcomes) => format!("{} outcomes", outcomes.states.len()),
                Answer::States(states) => format!("{} states", states.len()),
                Answer::NotKept { oldest } => format!("not kept before {oldest}"),
                Answer::Failed { reason } => reason.clone(),
            };
            format!("answer {number}: {what}")
        }
    }
}

fn describe_query(query: &Query) -> String {
    match query {
        Query::Read { partition, epoch, keys } => {
            format!("{} keys of {partition} at {epoch}", keys.len())
        }
        Query::Receipt { partition, position } => format!("receipt at {position} of {partition}"),
        Query::Digests => "digests".into(),
        Query::Outcomes { partition, epochs, .. } => {
            format!("outcomes of {} epochs at {partition}", epochs.len())
        }
        Query::States { epochs } => format!("states of {} epochs", epochs.len()),
    }
}

pub(crate) fn describe_receipt(receipt: &Receipt) -> String {
    format!("{} {} {:?}", receipt.position, brief(receipt.id), receipt.outcome)
}

pub(crate) fn describe_push(push: &Push) -> String {
    let (kind, items) = match &*push.kind {
        PushKind::Reads(items) => ("reads", items.len()),
        PushKind::Writes(items) => ("writes", items.len()),
    };
    format!("{} {}->{} {items} {kind}", push.position, push.from, push.to)
}

pub(crate) fn describe_request(message: &ClientMessage) -> String {
    match message {
        ClientMessage::Hello { .. } => "hello".into(),
        ClientMessage::Submit { request, transactions } => {
            let ids = list(transactions, |transaction| brief(transaction.content_id()));
            format!("submit {request}: {ids}")
        }
        ClientMessage::Read { request, at, keys } => {
            format!("read {request}: {} keys at {at:?}", keys.len())
        }
        ClientMessage::Status { request } => format!("status {request}"),
        ClientMessage::Blocks { request, from, .. } => format!("blocks {request} from {from}"),
        ClientMessage::Query { request, at, .. } => format!("query {request} at {at}"),
    }
}

pub(crate) fn describe_answer(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Welcome(_) => "welcome".into(),
        ServerMessage::Verdicts { request, verdicts } => {
            let verdict = |verdict: &Verdict| match verdict {
                Verdict::Accepted(id) => brief(id),
                Verdict::Rejected { code, .. } => format!("{code:?}"),
            };
            format!("verdicts {request}: {}", list(verdicts, verdict))
        }
        ServerMessage::Receipts(receipts) => {
            format!("receipts: {}", list(receipts, |each| describe_receipt(&each.receipt)))
        }
        ServerMessage::Values { request, epoch, .. } => format!("values {request} at {epoch}"),
        ServerMessage::Failed { request, detail, .. } => format!("failed {request}: {detail}"),
        ServerMessage::Status { request, .. } => format!("status {request}"),
        ServerMessage::Blocks { request, blocks, .. } => {
            format!("blocks {request}: {}", blocks.len())
        }
        ServerMessage::Answer { request, .. } => format!("answer {request}"),
        ServerMessage::Goodbye { reason } => format!("goodbye: {reason}"),
    }
}

/// At most eight of `items`.
fn list<T>(items: &[T], each: impl Fn(&T) -> String) -> String {
    const SHOWN: usize = 8;
    let mut text = items.iter().take(SHOWN).map(each).collect::<Vec<_>>().join("; ");
    if items.len() > SHOWN {
        text.push_str(&format!("; ... {} in all", items.len()));
    }
    text
}
