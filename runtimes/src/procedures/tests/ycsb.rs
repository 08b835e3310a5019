use super::super::ycsb::{Answer, Call, Op, Record, key};
use super::*;

fn table(records: u64) -> Host {
    let mut host = host();
    for record in 0..records {
        let fields = [&b"0123456789"[..], &[b'a' + u8::try_from(record).unwrap(); 10]].concat();
        host.state.insert(key(1, record), Record { version: 0, fields: &fields }.encode());
    }
    host
}

fn call(answer: Answer, ops: Vec<Op>) -> Invocation {
    Invocation::Ycsb(Call { table: 1, answer, ops })
}

fn update(record: u64, field: u8, value: &'static str) -> Op {
    Op::Update { record, field, value: Bytes::from_static(value.as_bytes()) }
}

#[test]
fn reads_return_records_and_updates_set_a_field() {
    let mut host = table(3);
    let ops = vec![Op::Read { record: 0 }, update(1, 4, "xy"), Op::Read { record: 9 }];
    let output = committed(&mut host, call(Answer::Records, ops));
    let expected = [&20u32.to_be_bytes()[..], b"0123456789aaaaaaaaaa", &[0xff; 4]].concat();
    assert_eq!(&output[..], expected);
    let row = host.state[&key(1, 1)].clone();
    let record = Record::decode(&row).unwrap();
    assert_eq!((record.version, record.fields), (1, &b"01234567xybbbbbbbbbb"[..]));
    assert_eq!((record.field(4), record.field(10)), (Some(&b"xy"[..]), None));
    assert!(committed(&mut host, call(Answer::Records, vec![update(1, 4, "xy")])).is_empty());
}

#[test]
fn a_read_modify_write_returns_what_was_there() {
    let mut host = table(1);
    let value = Bytes::from_static(b"zz");
    let op = Op::ReadModifyWrite { record: 0, field: 0, value };
    let output = committed(&mut host, call(Answer::Records, vec![op]));
    assert!(output.ends_with(b"0123456789aaaaaaaaaa"));
    assert_eq!(Record::decode(&host.state[&key(1, 0)]).unwrap().field(0), Some(&b"zz"[..]));
}

#[test]
fn a_digest_tells_how_many_were_found_and_what() {
    let mut host = table(5);
    let scan = |first| call(Answer::Digest, vec![Op::Scan { first, count: 3 }]);
    let (one, other) = (committed(&mut host, scan(0)), committed(&mut host, scan(1)));
    assert_eq!((one.len(), &one[..8]), (16, &3u64.to_be_bytes()[..]));
    assert_ne!(one[8..], other[8..]);
    assert_eq!(committed(&mut host, scan(3))[..8], 2u64.to_be_bytes());
    committed(&mut host, call(Answer::Digest, vec![update(1, 0, "zz")]));
    assert_ne!(committed(&mut host, scan(0)), one);
}

#[test]
fn records_are_inserted_once() {
    let mut host = table(1);
    let insert = |record| {
        let fields = Bytes::from_static(b"9876543210");
        call(Answer::Records, vec![Op::Insert { record, fields }])
    };
    committed(&mut host, insert(7));
    assert_eq!(refused(&mut host, insert(7)), ErrorCode::AlreadyExists);
    assert_eq!(Record::decode(&host.state[&key(1, 7)]).unwrap().fields, b"9876543210");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut host = table(1);
    let mut no = |op| refused(&mut host, call(Answer::Records, vec![op]));
    assert_eq!(no(update(0, 0, "xyz")), ErrorCode::Refused);
    assert_eq!(no(update(0, 0, "")), ErrorCode::Refused);
    assert_eq!(no(update(5, 0, "xy")), ErrorCode::Refused);
    // More than a receipt may return.
    let fields = vec![1; 100_000];
    host.state.insert(key(1, 0), Record { version: 0, fields: &fields }.encode());
    let read = || vec![Op::Read { record: 0 }];
    assert_eq!(refused(&mut host, call(Answer::Records, read())), ErrorCode::TooLarge);
    committed(&mut host, call(Answer::Digest, read()));
}

#[test]
fn bad_arguments_are_refused_at_admission() {
    let bad = |ops| malformed(call(Answer::Records, ops));
    let read = |record| Op::Read { record };
    assert!(bad(vec![]).contains("1 to 256"));
    assert!(bad((0..257).map(read).collect()).contains("1 to 256"));
    assert!(bad(vec![read(1), update(1, 0, "xy")]).contains("twice"));
    assert!(bad(vec![update(1, 10, "xy")]).contains("ten fields"));
    let scan = |first, count| Op::Scan { first, count };
    assert!(bad(vec![scan(0, 1), read(0)]).contains("alone"));
    assert!(bad(vec![scan(0, 0)]).contains("1,000"));
    assert!(bad(vec![scan(0, 1_001)]).contains("1,000"));
    assert!(bad(vec![scan(u64::MAX, 2)]).contains("last number"));
    for bytes in [0, 9, 600_000] {
        let fields = vec![0; bytes].into();
        assert!(bad(vec![Op::Insert { record: 1, fields }]).contains("equal length"));
    }
}
