use super::*;

#[test]
fn values_go_in_and_come_out() {
    let (mut host, contract) = deployed(&contract("return ..."));
    let arguments = [
        LuaValue::Nil,
        true.into(),
        i64::MIN.into(),
        (-0.0).into(),
        2.0.into(),
        f64::INFINITY.into(),
        LuaValue::Bytes(Bytes::from_static(b"a\0\xff")),
        "".into(),
    ];
    let receipt = invoke(&mut host, contract, "main", &arguments);
    assert_eq!(values(&receipt), arguments);
    let LuaValue::Float(zero) = values(&receipt)[3] else { panic!("no float") };
    assert!(zero.is_sign_negative());
    let nans = [f64::NAN, -f64::NAN].map(LuaValue::Float);
    let receipt = invoke(&mut host, contract, "main", &nans);
    for value in values(&receipt) {
        assert!(matches!(value, LuaValue::Float(nan) if nan.to_bits() == f64::NAN.to_bits()));
    }
    assert_eq!(run("return").output, Bytes::new());
}

#[test]
fn what_can_not_be_returned_is_an_error() {
    for (body, problem) in [
        ("return {}", "a value of type table can't be returned"),
        ("return print, function() end", "a value of type function can't be returned"),
        ("return table.unpack({}, 1, 65)", "more than 64 values were returned"),
    ] {
        let receipt = run(body);
        assert_eq!((receipt.outcome.clone(), text(&receipt)), (REFUSED, problem.into()));
    }
    let receipt = run_with("return ('x'):rep(70000)", WORK_MAX);
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::TooLarge));
}

#[test]
fn the_state_is_the_contracts_own() {
    let (mut host, id) = deployed(
        "return {
            set = function(k, v) state.put(k, v) end,
            get = function(k) return state.get(k) end,
            add = function(k, n) state.add(k, n) end,
            number = function(k) return state.number(k) end,
        }",
    );
    let other = deployed("return { get = function(k) return state.get(k) end } --").1;
    let source = "return { get = function(k) return state.get(k) end } --".to_owned();
    host.submit(&LuaCall::deploy(source).into_transaction(5)).unwrap();
    assert!(invoke(&mut host, id, "set", &["k".into(), "v".into()]).is_committed());
    let got = invoke(&mut host, id, "get", &["k".into()]);
    assert_eq!(values(&got), ["v".into()]);
    let foreign = invoke(&mut host, other, "get", &["k".into()]);
    assert_eq!(values(&foreign), [LuaValue::Nil]);
    assert_eq!(host.state[&contract_key(&id, b"k").unwrap()], "v");
    assert!(invoke(&mut host, id, "set", &["k".into(), LuaValue::Nil]).is_committed());
    assert!(!host.state.contains_key(&contract_key(&id, b"k").unwrap()));
    for n in [5, -7] {
        assert!(invoke(&mut host, id, "add", &["n".into(), n.into()]).is_committed());
    }
    assert_eq!(ints(&invoke(&mut host, id, "number", &["n".into()])), [-2]);
    assert_eq!(ints(&invoke(&mut host, id, "number", &["absent".into()])), [0]);
    assert!(invoke(&mut host, id, "set", &["n".into(), "abc".into()]).is_committed());
    assert_eq!(invoke(&mut host, id, "number", &["n".into()]).outcome, REFUSED);
}

#[test]
fn a_call_sees_its_own_changes() {
    let receipt = run("state.put('a', 'x') local x = state.get('a')
         state.add('n', 2) state.add('n', 3) local n = state.number('n')
         state.put('n', nil) state.add('n', 1)
         return x, n, state.number('n'), state.get('a') == 'x'");
    let expected = ["x".into(), 5.into(), 1.into(), true.into()];
    assert_eq!(values(&receipt), expected);
}

#[test]
fn an_error_undoes_everything() {
    for body in [
        "state.put('a', 'x') emit('t', 'd') error('no')",
        "state.put('a', 'x') emit('t', 'd') while true do end",
        "state.put('a', 'x') emit('t', 'd') local s = 'x' while true do s = s .. s end",
    ] {
        let (mut host, id) = deployed(&contract(body));
        let before = host.state.clone();
        let receipt = invoke(&mut host, id, "main", &[]);
        assert!(matches!(receipt.outcome, Outcome::Reverted(_)));
        assert!(receipt.events.is_empty());
        assert_eq!(host.state, before);
    }
}

#[test]
fn errors_say_where_and_what() {
    for (body, problem) in [
        ("error('no')", "contract:1: no"),
        ("error('no', 0)", "no"),
        ("error({})", "the error is a value of type table"),
        ("error()", "the error is a value of type nil"),
        ("error(1.5)", "1.5"),
        ("\n\nlocal x = nil + 1", "contract:3: attempt to perform arithmetic on a nil value"),
        ("return ('x'):bad()", "contract:1: attempt to call a nil value (method 'bad')"),
        (
            "local t = {} t[{}] = 1",
            "contract:1: a table key must be a string, a number or a boolean, not a table",
        ),
        (
            "return '1' + 1",
            "contract:1: attempt to perform arithmetic on a string value (constant '1')",
        ),
        ("string.x = 1", "contract:1: attempt to change 'x' of a library"),
        ("state.put(1, 'x')", "contract:1: bad argument #1 to 'put' (string expected, got number)"),
        (
            "state.get(('k'):rep(2000))",
            "contract:1: a key has 2035 bytes; 3 to 1024 are allowed, header included",
        ),
        ("local x = ('x'):find('[')", "contract:1: malformed pattern (missing ']')"),
        ("coroutine.yield()", "contract:1: attempt to yield from outside a coroutine"),
    ] {
        let receipt = run(body);
        assert_eq!((text(&receipt), receipt.outcome), (problem.into(), REFUSED), "{body}");
    }
    let (mut host, id) = deployed("return {}");
    let receipt = invoke(&mut host, id, "nothing", &[]);
    assert_eq!(text(&receipt), "the contract has no function 'nothing'");
    let (mut host, id) = deployed("return 1");
    assert_eq!(
        text(&invoke(&mut host, id, "main", &[])),
        "a contract returns a table of functions"
    );
}

#[test]
fn contracts_are_deployed_once() {
    let (mut host, id) = deployed("return {}");
    let again = host.submit(&LuaCall::deploy("return {}".to_owned()).into_transaction(1)).unwrap();
    assert_eq!(again.outcome, Outcome::Reverted(ErrorCode::AlreadyExists));
    let unknown = invoke(&mut host, [9; 32], "main", &[]);
    assert_eq!(unknown.outcome, Outcome::Reverted(ErrorCode::UnknownContract));
    assert!(host.state.contains_key(&source_key(&id)));
    assert!(source_key(&id).is_replicated());
    for source in ["return {", "x = 2 +", "local x <const> = 1 x = 2", "goto nowhere", "\x1bLua"] {
        let call = LuaCall::deploy(source.to_owned()).into_transaction(1);
        assert_eq!(host.submit(&call).unwrap().outcome, REFUSED, "{source}");
    }
}

#[test]
fn admission_refuses_what_is_no_call() {
    let runtime = LuaRuntime::new();
    let code = |call: LuaCall| {
        runtime.admit(&call.into_transaction(0)).map(drop).map_err(|rejection| rejection.code)
    };
    assert_eq!(code(LuaCall::deploy("return 2 ^ 3")), Err(ErrorCode::Malformed));
    assert_eq!(code(LuaCall::deploy(vec![b' '; SOURCE_BYTES_MAX])), Ok(()));
    assert_eq!(code(LuaCall::deploy(vec![b' '; SOURCE_BYTES_MAX + 1])), Err(ErrorCode::Malformed));
    let limit = |limit| LuaCall::Invoke {
        contract: [0; 32],
        function: "f".into(),
        arguments: Vec::new(),
        limit,
    };
    assert_eq!(code(limit(WORK_MAX)), Ok(()));
    assert_eq!(code(limit(WORK_MAX + 1)), Err(ErrorCode::TooLarge));
    let arguments = |count| LuaCall::invoke([0; 32], "f", vec![LuaValue::Nil; count]);
    assert_eq!(code(arguments(VALUES_MAX)), Ok(()));
    assert_eq!(code(arguments(VALUES_MAX + 1)), Err(ErrorCode::Malformed));
    let payload = Transaction::new(RuntimeId::LUA, "garbage");
    assert_eq!(runtime.admit(&payload).unwrap_err().code, ErrorCode::Malformed);
}

#[test]
fn the_payload_tells_the_footprint_of_a_deployment() {
    let deploy = LuaCall::deploy("return {}").into_transaction(0);
    let key = source_key(&contract_id(b"return {}"));
    let runtime = LuaRuntime::new();
    let expected = Footprint::new(vec![Access { key: key.clone(), mode: Mode::Write }]).unwrap();
    assert_eq!(runtime.admit(&deploy).unwrap().footprint, Some(expected));
    assert_eq!(runtime.likely_keys(&[], &deploy.payload), std::slice::from_ref(&key));
    let call = LuaCall::invoke(contract_id(b"return {}"), "f", []).into_transaction(0);
    assert_eq!(runtime.admit(&call).unwrap().footprint, None);
    assert_eq!(runtime.likely_keys(&[], &call.payload), [key]);
}

#[test]
fn events_are_announced() {
    let receipt = run(
        "emit('name', 'data') emit(('t'):rep(32)) coroutine.wrap(function() emit('x', '') end)()",
    );
    let events = &receipt.events;
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].source.len(), 32);
    assert_eq!(events[0].topics[..], [*blake3::hash(b"name").as_bytes()]);
    assert_eq!(events[0].data, "data");
    assert_eq!(events[1].topics[..], [[b't'; 32]]);
    let many = "for i = 1, 1025 do emit('t', 'd') end";
    assert_eq!(run(many).outcome, REFUSED);
    let much = "local s = ('x'):rep(200000) emit('t', s) emit('t', s)";
    assert_eq!(run_with(much, WORK_MAX).outcome, REFUSED);
}

#[test]
fn the_context_is_that_of_the_epoch() {
    let (mut host, id) = deployed(&contract("return block.epoch, block.timestamp, tx.id"));
    let call = LuaCall::invoke(id, "main", []).into_transaction(1);
    let receipt = host.submit(&call).unwrap();
    let expected = [7.into(), 1_700_000_000_123.into(), call.content_id().0[..].into()];
    assert_eq!(values(&receipt), expected);
}

#[test]
fn hashes_are_right() {
    let receipt = run("return sha256('abc'), blake3('abc')");
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let LuaValue::Bytes(found) = &values(&receipt)[0] else { panic!("no string") };
    assert_eq!(found.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), sha);
    assert_eq!(values(&receipt)[1], blake3::hash(b"abc").as_bytes()[..].into());
}

/// Programs that mean the same in Lua itself.
const LIBRARY_USES: &[&str] = &[
    "return table.concat({1, 2.5, 'x'}, ', '), table.concat({}), table.concat({1,2,3}, '', 2, \
         3)",
    "local t = {1,2,3} table.insert(t, 4) table.insert(t, 1, 0) return table.concat(t, ' ')",
    "local t = {1,2,3} return table.remove(t), table.remove(t, 1), #t, table.remove({}), t[1]",
    "return table.unpack({1,2,3}), table.unpack({1,2,3}, 2), table.unpack({1,2}, 1, 3)",
    "local t = table.move({1,2,3}, 1, 3, 2) return table.concat(t, ' ')",
    "local t = table.move({1,2,3}, 2, 3, 1) return table.concat(t, ' ')",
    "local t = table.pack(1, nil, 3) return t.n, t[3]",
    "local t = {5,2,8,1,9,3,7} table.sort(t) return table.concat(t, ' ')",
    "local t = {5,2,8,1,9,3,7} table.sort(t, function(a, b) return a > b end) return \
         table.concat(t, ' ')",
    "return ('hello'):find('l'), ('hello'):find('xyz'), ('hello'):find('l', 4), \
         ('a.b'):find('.', 1, true)",
    "return ('hello'):find('l', -2), ('hello'):find('', 10), ('hello'):find('', 6), \
         ('a+b'):find('+', 1, true)",
    "return ('key = value'):match('(%w+) = (%w+)'), ('abc'):match('b'), ('abc'):match('()b()')",
    "local r = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do r[#r+1] = k .. v end \
         return table.concat(r, ' ')",
    "local r = {} for w in ('one two'):gmatch('%a+') do r[#r+1] = w end return \
         table.concat(r, ' ')",
    "local r = {} for p in ('abc'):gmatch('()') do r[#r+1] = p end return table.concat(r, ' ')",
    "return ('hello world'):gsub('o', '0'), ('hello'):gsub('', '-'), ('abc'):gsub('%w', \
         '%0%0')",
    "return ('hello world'):gsub('(%w+) (%w+)', '%2 %1'), ('abc'):gsub('b', '%%')",
    "return ('$name is $age'):gsub('%$(%w+)', {name = 'Bob', age = 42}), ('abc'):gsub('%w', \
         {a = false})",
    "return ('abc'):gsub('%w', function(c) if c ~= 'b' then return c:upper() end end)",
    "return ('abc abc'):gsub('^abc', 'x'), ('aaa'):gsub('a', 'b', 2), ('abc'):gsub('b*', 'x')",
    "return ('ab'):rep(3), ('ab'):rep(3, ','), ('ab'):rep(0), (''):rep(5), ('x'):rep(-1)",
    "return ('abc'):byte(), ('abc'):byte(1, -1), ('abc'):byte(10), ('abc'):byte(-1), \
         ('abc'):byte(0)",
    "return string.format('%d %5.2f %s %q', 1, 2.5, 'x', 'q') == nil",
    "return string.format('%5d|%-5s|%05.1f|%x|%g|%c|%i|%%', 3, 'ab', 2.25, 255, 1e20, 65, 7)",
    "return string.format('%s %s %s', nil, true, 1.0), string.format('%.3s', 'abcdef')",
    "return string.pack('>I2 s1', 258, 'ab'), string.unpack('<i4', '\\1\\0\\0\\0')",
    "return tostring(nil), tostring(1), tostring(1.0), tostring(-0.0), tostring(1e100), \
         tostring(true)",
    "return tostring(setmetatable({}, {__tostring = function() return 'shown' end}))",
    "return tonumber('10'), tonumber('0x10'), tonumber('z', 36), tonumber('x'), tonumber(' \
         1.5 ')",
    "local t = {} for i, v in ipairs({1, 2, nil, 4}) do t[#t+1] = i * v end return \
         table.concat(t, ' ')",
    "local t = {} for k, v in pairs(setmetatable({}, {__pairs = function(t) return \
         function(_, k) if not k then return 1, 2 end end, t, nil end})) do t[#t+1] = k + v end \
         return t[1]",
    "return pcall(error, 'x'), pcall(error, {1}) == false, select('#', pcall(error))",
    "return xpcall(function(...) return ... end, print, 1, 2), xpcall(error, function(e) \
         return e .. '!' end, 'x')",
    "local co = coroutine.create(function(a, b) local c = coroutine.yield(a + b) return c * 2 \
         end)
         local _, x = coroutine.resume(co, 1, 2) local _, y = coroutine.resume(co, 5)
         return x, y, coroutine.status(co), select('#', coroutine.resume(co))",
    "local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) return \
         co() + co() + co(), co()",
    "local co = coroutine.create(function() end) return select('#', coroutine.resume(co))",
    "return coroutine.isyieldable(), coroutine.wrap(coroutine.isyieldable)(), select(2, \
         coroutine.running())",
    "local co = coroutine.wrap(function() error('x', 0) end) return pcall(co)",
    "local log = {} do local a <close> = setmetatable({}, {__close = function(_, e) \
         log[#log+1] = tostring(e) end}) end
         local m = {__close = function(_, e) log[#log+1] = tostring(e) end}
         pcall(function() local a <close> = setmetatable({}, m) error('x', 0) end)
         return table.concat(log, ' ')",
    "return math.floor(3.7), math.ceil(3.2), math.max(1, 5, 3), math.tointeger(3.0), \
         math.type(1), 7 // 2, 7 % -3, -7 // 2.0",
    "return utf8.char(228, 8364), utf8.len('\\xc3\\xa4'), #utf8.char(128512), \
         utf8.codepoint('\\xc3\\xa4')",
    "return rawequal('a', 'a'), rawlen({1,2}), rawget({5}, 1), #rawset({}, 1, 2), select('#', \
         nil, nil)",
    "local t = setmetatable({}, {__index = function(_, k) return k * 2 end}) return t[4], \
         rawget(t, 4)",
    "local t = setmetatable({}, {__index = function(_, i) if i < 4 then return i end end, \
         __len = function() return 3 end}) return table.concat(t, ','), table.unpack(t)",
    "local t = {} t[1], t['a'], t[true] = 1, 2, 3 return t[1], t.a, t[true], #t",
    "local i = 1 local t = {[i] = 'a', [i + 1] = 'b', c = 'd'} t[i], i = 'z', 2 return t[1], \
         t[2], t.c",
];

/// The libraries that are written anew do what Lua's do.
#[test]
fn the_libraries_behave_as_lua() {
    let lua = mlua::Lua::new();
    for body in LIBRARY_USES {
        let ours = run(body);
        let chunk = "local r = table.pack(...) for i = 1, r.n do r[i] = tostring(r[i]) end return \
        table.concat(r, '|')";
        let expected: Result<String, _> = lua
            .load(*body)
            .call::<mlua::MultiValue>(())
            .and_then(|values| lua.load(chunk).call(values));
        let shown = |value: &LuaValue| match value {
            LuaValue::Nil => "nil".to_owned(),
            LuaValue::Bool(value) => value.to_string(),
            LuaValue::Int(value) => value.to_string(),
            LuaValue::Float(value) => lua.load("return tostring(...)").call(*value).unwrap(),
            LuaValue::Bytes(value) => String::from_utf8_lossy(value).into_owned(),
        };
        match ours.outcome {
            Outcome::Committed => {
                let all: Vec<_> = values(&ours).iter().map(shown).collect();
                if body.contains("isyieldable") {
                    // Lua's own main thread is no coroutine; neither is ours, to contracts.
                    assert_eq!(all, ["false", "true", "true"]);
                } else {
                    assert_eq!(all.join("|"), expected.unwrap(), "{body}");
                }
            }
            _ => assert!(body.contains("%q"), "{body}: {}", text(&ours)),
        }
    }
}

#[test]
fn powers_are_exact() {
    let receipt = run("return math.pow(2, 10), math.pow(2, -2), math.pow(-3, 3), math.pow(5, 0)");
    assert_eq!(values(&receipt), [1024.0, 0.25, -27.0, 1.0].map(LuaValue::Float));
    assert_eq!(run("return math.pow(2, 0.5)").outcome, REFUSED);
}
