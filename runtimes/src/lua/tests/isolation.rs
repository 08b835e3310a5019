use std::collections::BTreeMap;

use super::*;

/// One transaction leaves something everywhere it can, another looks for it.
#[test]
fn nothing_leaks_from_call_to_call() {
    let (mut host, id) = deployed(
        "count = (count or 0) + 1
         local calls = 0
         return {
            litter = function()
                calls = calls + 1
                leaked = 'global'
                _G.other = 'global'
                _ENV.third = 'global'
                string = { rep = 'mine' }
                tostring = nil
                block.epoch = 99
                tx.extra = 1
                setmetatable(block, { __index = function() return 'leak' end })
                pcall(rawset, _G, 'raw', 1)
                pcall(function() state.extra = 1 end)
                return calls, count
            end,
            look = function()
                calls = calls + 1
                return calls, count, leaked, other, third, raw, type(string.rep), type(tostring),
                    block.epoch, tx.extra, block.missing, state.extra
            end,
         }",
    );
    let clean: Vec<LuaValue> = {
        host.restart();
        values(&invoke(&mut host, id, "look", &[]))
    };
    let expected = [
        1.into(),
        1.into(),
        LuaValue::Nil,
        LuaValue::Nil,
        LuaValue::Nil,
        LuaValue::Nil,
        "function".into(),
        "function".into(),
        7.into(),
    ];
    assert_eq!(clean[..9], expected);
    for _ in 0..3 {
        assert_eq!(ints(&invoke(&mut host, id, "litter", &[])), [1, 1]);
        assert_eq!(values(&invoke(&mut host, id, "look", &[])), clean);
    }
}

fn long_call(host: &mut Host, contract: [u8; 32]) -> Receipt {
    let (function, arguments, limit) = ("main".into(), Vec::new(), 2_000_000);
    let call = LuaCall::Invoke { contract, function, arguments, limit };
    host.submit(&call.into_transaction(1)).unwrap()
}

/// A machine that has run other things gives the same receipts as a new one: outcomes, outputs,
/// events and work.
#[test]
fn what_ran_before_does_not_show() {
    let bodies = [
        "local t = {} for i = 1, 50 do t['k' .. i] = i end local s = '' for k in pairs(t) do s = \
         s .. k end return s",
        "local s = '' for i = 1, 500 do s = s .. i end return #s, state.number('n')",
        "state.add('n', 1) emit('e', tostring(block)) return tx.id",
        "local s = 'x' while true do s = s .. s end",
        "for i = 1, 1e9 do end",
        "error('x')",
        "local t = {} for i = 1, 20000 do t[i] = 'some text ' .. i end return #t",
        "local co = coroutine.wrap(function() for i = 1, 1000 do coroutine.yield(i) end end) \
         local s = 0 for i = 1, 900 do s = s + co() end return s",
        "local t = {} for i = 1, 300 do t[i] = ('x'):rep(5000) end return #t, state.get('k')",
        "local t = {} for i = 1, 4000 do t[i] = ('x'):rep(5000) end return #t",
        "local t = {} for i = 1, 20000 do t['key' .. i] = i end local n = 0 for k in pairs(t) do \
         n = n * 31 + #k end return n",
        "local t = {1, 2, 3} t[5] = 5 t[9] = 9 t[4] = 4 return #t",
        "return pcall(string.rep, 'x', 1 << 33)",
        "local t = {} for i = 1, 3000 do t[i % 97] = {i} end local n = 0 for k, v in pairs(t) do \
         n = n * 31 + v[1] & 0xffff end return n",
    ];
    let ids: Vec<_> = bodies.iter().map(|body| contract_id(contract(body).as_bytes())).collect();
    let fresh = || {
        let mut host = Host::new(LuaRuntime::new());
        for body in bodies {
            let call = LuaCall::deploy(contract(body)).into_transaction(0);
            assert!(host.submit(&call).unwrap().is_committed());
        }
        host
    };
    let mut clean = BTreeMap::new();
    for id in &ids {
        let mut host = fresh();
        host.restart();
        clean.insert(*id, long_call(&mut host, *id));
    }
    let ends: BTreeMap<_, _> = clean.values().map(|r| (format!("{:?}", r.outcome), ())).collect();
    assert_eq!(ends.len(), 4, "of each kind of end there is one: {ends:?}");
    let mut used = fresh();
    let sources = used.state.clone();
    for round in 0..60 {
        let id = ids[(round * 7 + round / 5) % ids.len()];
        used.state = sources.clone();
        assert_eq!(long_call(&mut used, id), clean[&id], "round {round}");
    }
}

/// Small calls by the thousand, so that machines collect garbage and drop contracts.
#[test]
fn a_machine_lives_long() {
    let (mut host, id) = deployed(&contract(
        "local t = {} for i = 1, 200 do t[i] = 'text ' .. i .. tx.id end return #table.concat(t)",
    ));
    let expected = invoke(&mut host, id, "main", &[]);
    for _ in 0..2_000 {
        assert_eq!(invoke(&mut host, id, "main", &[]), expected);
    }
    for n in 0..600 {
        let source = contract(&format!("return {n}"));
        host.submit(&LuaCall::deploy(source.clone()).into_transaction(0)).unwrap();
        let receipt = invoke(&mut host, contract_id(source.as_bytes()), "main", &[]);
        assert_eq!(ints(&receipt), [n]);
    }
    assert_eq!(invoke(&mut host, id, "main", &[]), expected);
}

/// A state that interrupts at one key.
struct Interrupting {
    source: (Key, Value),
    at: Key,
    with: Interrupt,
}

impl State for Interrupting {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        match *key == self.at {
            true => Err(self.with.clone()),
            false => Ok((*key == self.source.0).then(|| self.source.1.clone())),
        }
    }

    fn put(&mut self, key: &Key, _: Option<Value>) -> Result<(), Interrupt> {
        panic!("{key} is written although the call was interrupted");
    }

    fn add(&mut self, key: &Key, _: parsec_protocol::Delta) -> Result<(), Interrupt> {
        panic!("{key} is added to although the call was interrupted");
    }

    fn covers(&self, _: &Key, _: Mode) -> bool {
        true
    }
}

#[test]
fn an_interrupt_can_not_be_caught() {
    for body in [
        "state.get('k')",
        "pcall(state.get, 'k')",
        "xpcall(state.get, function() end, 'k')",
        "while true do pcall(state.get, 'k') end",
        "coroutine.wrap(function() state.get('k') end)()",
        "pcall(coroutine.wrap(function() pcall(state.get, 'k') end))",
        "coroutine.resume(coroutine.create(function() coroutine.wrap(function() state.number('k') \
         end)() end))",
        "local x <close> = setmetatable({}, {__close = function() error('caught') end}) \
         state.get('k')",
        "setmetatable({}, {__index = function() return state.get('k') end})[1] = state.get('k')",
        "table.sort({2, 1}, function(a, b) pcall(state.get, 'k') return a < b end)",
        "('x'):gsub('x', function() pcall(state.get, 'k') end)",
        "tostring(setmetatable({}, {__tostring = function() pcall(state.get, 'k') return 'x' \
         end}))",
        "for _ in pairs(setmetatable({}, {__pairs = function() pcall(state.get, 'k') end})) do end",
    ] {
        let body = format!("state.put('written', 'x'); {body} state.put('after', 'x')");
        let (mut host, id) = deployed(&contract(&body));
        let entry = host.admit(&LuaCall::invoke(id, "main", []).into_transaction(0)).unwrap();
        let key = contract_key(&id, b"k").unwrap();
        let source = (source_key(&id), host.state[&source_key(&id)].clone());
        for with in [
            Interrupt::Missing(key.clone()),
            Interrupt::Stray(Access { key: key.clone(), mode: Mode::Read }),
            Interrupt::Fatal("broken".into()),
        ] {
            let mut state =
                Interrupting { source: source.clone(), at: key.clone(), with: with.clone() };
            assert_eq!(host.call(&entry, &mut state), Err(with), "{body}");
        }
        // The machine is as good as before.
        assert!(!matches!(host.execute(&entry).outcome, Outcome::Strayed { .. }));
    }
}

#[test]
fn a_key_outside_the_footprint_strays_and_has_no_effect() {
    let (mut host, id) = deployed(&contract("state.put('a', 'x') state.add('b', 1)"));
    let call = LuaCall::invoke(id, "main", []).into_transaction(0);
    let mut entry = host.admit(&call).unwrap();
    let full = entry.footprint.clone();
    assert_eq!(full.accesses().len(), 3);
    let without_b = full.accesses().iter().filter(|access| access.mode != Mode::Add);
    entry.footprint = Footprint::new(without_b.cloned().collect()).unwrap();
    let before = host.state.clone();
    let key = contract_key(&id, b"b").unwrap();
    assert_eq!(host.execute(&entry).outcome, Outcome::Strayed { key, mode: Mode::Add });
    assert_eq!(host.state, before);
    entry.footprint = full;
    assert!(host.execute(&entry).is_committed());
}
