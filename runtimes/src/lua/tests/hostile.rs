use std::collections::BTreeMap;

use parsec_protocol::limits::VALUE_BYTES_MAX;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

/// The shared programs, by id.
fn shared_cases() -> BTreeMap<String, (String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/lua/lua-hostile.json");
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("the hostile programs are not at {path}: {error}"));
    let json: Json = serde_json::from_str(&text).unwrap();
    let string = |case: &Json, field: &str| case[field].as_str().unwrap().to_owned();
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 52);
    cases
        .iter()
        .map(|case| (string(case, "id"), (string(case, "src"), string(case, "expect"))))
        .collect()
}

/// Runs a program with a limit that the resource bombs must exceed.
fn bomb(body: &str) -> Receipt {
    run_with(body, 1_000_000)
}

/// Runs one of them; `None` if it is refused at admission.
fn shared(source: &str) -> Option<Receipt> {
    let refused = source::prepare(contract(source).as_bytes()).is_err();
    (!refused).then(|| bomb(source))
}

#[test]
fn the_shared_programs_end_as_they_should() {
    let mut refused = Vec::new();
    for (id, (source, expect)) in shared_cases() {
        let Some(receipt) = shared(&source) else {
            refused.push(id);
            continue;
        };
        let stopped = matches!(receipt.outcome, OUT_OF_WORK | OUT_OF_MEMORY);
        let denied = receipt.outcome == REFUSED
            || receipt.is_committed()
                && values(&receipt).iter().all(|value| *value == LuaValue::Nil);
        let good = match &expect[..] {
            "denied" => denied,
            // There is no `load` to do the work with.
            "resource-limit" if id == "cpu-19" => denied,
            "resource-limit" => stopped,
            "denied-or-limit" => denied || stopped,
            "clean-error" | "same-on-every-node" => true,
            other => panic!("{id}: what is {other}?"),
        };
        let text = String::from_utf8_lossy(&receipt.output).into_owned();
        assert!(good, "{id} ({expect}): {:?} {text}", receipt.outcome);
        assert!(!text.contains("0x"), "{id} shows an address: {text}");
    }
    // Those that raise to a power: they may be.
    assert_eq!(refused, ["bytecode-04", "determinism-16", "structure-40"]);
}

/// All processes on all hosts must agree with this: the digest was made by another one.
#[test]
fn the_shared_programs_have_the_same_receipts_in_every_process() {
    let mut hasher = blake3::Hasher::new();
    for (source, _) in shared_cases().into_values() {
        if let Some(receipt) = shared(&source) {
            hasher.update(&receipt.digest());
        }
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), PINNED_RECEIPTS);
}

const PINNED_RECEIPTS: &str = "e8eccb5e841671bb183bb7039989d59417c04694f9ec87ca0074788996375f56";

#[test]
fn loops_are_stopped_however_they_are_wrapped() {
    for body in [
        "while true do end",
        "LOOP",
        "pcall(function() LOOP end)",
        "while true do xpcall(function() error() end, function() while true do end end) end",
        "xpcall(function() error() end, function() LOOP end)",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "local function f() return coroutine.wrap(f)() end while true do pcall(f) end",
        "while true do coroutine.wrap(function() for i = 1, 100 do end end)() end",
        "local x <close> = setmetatable({}, {__close = function() LOOP end})",
        "pcall(function() local x <close> = setmetatable({}, {__close = function() LOOP end}) \
         error() end)",
        "coroutine.wrap(function() local x <close> = setmetatable({}, {__close = function() while \
         true do end end}) end)()",
        "table.sort({3, 2, 1}, function() LOOP end)",
        "(('x'):rep(3)):gsub('.', function() LOOP end)",
        "local t = setmetatable({}, {__index = function() LOOP end}) local x = t.x",
        "local t = setmetatable({}, {__index = function() LOOP end}) for _ in ipairs(t) do end",
        "local t = setmetatable({}, {__index = function() LOOP end, __len = function() return 3 \
         end}) table.concat(t)",
        "local t = setmetatable({}, {__index = function() LOOP end}) table.unpack(t, 1, 2)",
        "local t = setmetatable({}, {__len = function() LOOP end}) table.insert(t, 1)",
        "local t = setmetatable({}, {__add = function() LOOP end}) local x = 1 + t",
        "local t = setmetatable({}, {__add = function() LOOP end}) local x = '1' + t",
        "local m = {} local t = setmetatable({}, m) m.__concat = function() LOOP end local x = t \
         .. 'b'",
        "local t = setmetatable({}, {__lt = function() LOOP end}) table.sort({t, t})",
        "local t = setmetatable({}, {__tostring = function() LOOP end}) string.format('%s', t)",
        "local t = setmetatable({}, {__tostring = function() LOOP end}) tostring(t)",
        "local t = setmetatable({}, {__pairs = function() LOOP end}) pairs(t)",
        "local t = setmetatable({}, {__call = function() LOOP end}) t()",
        "for _ in function() LOOP end do end",
        "table.move({}, 1, 1e15, 2)",
        "table.concat({}, '', 1, 1e15)",
        "while true do pcall(string.rep, '', 1e15) end",
        "local t = {} for i = 1, 5000 do t[i] = i end while true do table.unpack(t) end",
        "local s = ('x'):rep(100000) while true do utf8.len(s) s:find('y', 1, true) end",
        "local s = ('a'):rep(5000) s:find('.-.-.-b')",
        "local s = ('a'):rep(5000) while true do pcall(string.find, s, '.-.-.-b') end",
        "local s = ('a'):rep(5000) while true do pcall(string.gsub, s, 'a*a*a*b', '') end",
        "while true do pcall(string.match, ('a'):rep(1000), ('a?'):rep(300)) end",
        "while true do pcall(check_sig, '', '', '') end",
        "local s = ('x'):rep(100000) while true do sha256(s) end",
        "while true do state.get('k') end",
        "while true do coroutine.wrap(function() state.get('k') end)() end",
        "while true do pcall(state.get, ('k'):rep(5000)) end",
        "::top:: goto top",
        "local _ = (('x'):rep(2000)):gsub('x', ('y'):rep(10000))",
        "local function f() f() end while true do pcall(f) end",
        "local function f(...) return f(1, ...) end while true do pcall(f) end",
    ] {
        // No error that the hook could raise would end this.
        let body = &body.replace(
            "LOOP",
            "while true do pcall(function() while true do end end) \
        end",
        );
        let receipt = bomb(body);
        let stopped = matches!(receipt.outcome, OUT_OF_WORK | OUT_OF_MEMORY);
        assert!(stopped, "{body}: {:?} {}", receipt.outcome, text(&receipt));
        if receipt.outcome == OUT_OF_WORK {
            assert_eq!(receipt.work, 1_000_000, "{body}");
        }
    }
}

#[test]
fn memory_is_limited_however_the_error_is_caught() {
    for body in [
        "local s, t = ('x'):rep(100000), {} for i = 1, 200 do t[i] = s:sub(2) end",
        "local s, t = ('x'):rep(100000), {} for i = 1, 200 do pcall(function() t[i] = s:sub(2) \
         end) end",
        "pcall(string.rep, 'x', 1 << 40)",
        "return ('x'):rep(20000000)",
        "coroutine.wrap(function() pcall(string.rep, 'x', 1 << 30) end)()",
        "local ok <close> = setmetatable({}, {__close = function() error('other') end}) \
         pcall(string.rep, 'x', 1 << 30)",
        "pcall(function() local ok <close> = setmetatable({}, {__close = function() \
         error('other') end}) local s = ('x'):rep(1 << 30) end)",
        "pcall(function() return ('x'):rep(1 << 30) end) return 1",
        "local s = ('x'):rep(50000) pcall(function() for i = 1, 600 do s:upper() end end)",
        "local s, t = ('x'):rep(100000), {} for i = 1, 250 do t[i] = s end return table.concat(t)",
        "pcall(string.pack, 'c2000000000', '')",
    ] {
        let receipt = run_with(body, WORK_MAX);
        assert_eq!(receipt.outcome, OUT_OF_MEMORY, "{body}: {}", text(&receipt));
    }
}

/// Between the pooled limit and that of a call there is a fresh machine.
#[test]
fn a_call_that_needs_much_memory_gets_it() {
    let much = "local t = {} for i = 1, 300 do t[i] = ('x'):rep(10000) end";
    let receipt =
        run_with(&format!("state.put('k', 'v') {much} return #t, state.get('k')"), WORK_MAX);
    assert_eq!(values(&receipt), [300.into(), "v".into()]);
    // What the pooled attempt announced is not announced twice.
    let receipt = run_with(&format!("emit('a', '') {much} emit('b', '')"), WORK_MAX);
    assert_eq!(receipt.events.len(), 2);
    // Nor can it tell that there was one.
    let receipt = run_with(
        &format!("return pcall(function() {much} error(t[300]:sub(1, 3), 0) end)"),
        WORK_MAX,
    );
    assert_eq!(values(&receipt), [false.into(), "xxx".into()]);
}

#[test]
fn much_memory_makes_instructions_dearer() {
    let body = |strings: u32| {
        format!("local t = {{}} for i = 1, {strings} do t[i] = ('x'):rep(200) .. i end")
    };
    let small = run_with(&body(5_000), WORK_MAX);
    let large = run_with(&body(25_000), WORK_MAX);
    assert!(small.is_committed() && small.work < WORK_MAX / 4, "{}", small.work);
    assert_eq!(large.outcome, OUT_OF_WORK);
}

#[test]
fn long_strings_make_instructions_dearer() {
    let looped = |make: &str| format!("local s = {make} for i = 1, 10000 do local x = i end");
    let cheap = run(&looped("('x'):rep(100)")).work;
    for make in [
        "('x'):rep(10000)",
        "'' for i = 1, 10 do s = s .. s .. ('x'):rep(9) end",
        "table.concat({('x'):rep(5000), ('x'):rep(5000)})",
        "string.format('%s%s', ('x'):rep(5000), ('x'):rep(5000))",
        "string.pack('z', ('x'):rep(9999))",
        "('x'):rep(100):gsub('x', ('y'):rep(100))",
        "state.get('long')",
        &format!("'{}'", "x".repeat(10_000)),
        &format!("[==[{}]==]", "x".repeat(10_000)),
    ] {
        let (mut host, contract) = deployed(&contract(&looped(make)));
        let key = contract_key(&contract, b"long").unwrap();
        host.state.insert(key, vec![b'x'; 10_000].into());
        let call = |limit| {
            let function = "main".into();
            LuaCall::Invoke { contract, function, arguments: Vec::new(), limit }.into_transaction(1)
        };
        let dear = host.submit(&call(WORK_MAX)).unwrap();
        assert!(dear.is_committed(), "{make}: {}", text(&dear));
        assert!(dear.work > 20 * cheap, "{make}: {} and {cheap}", dear.work);
    }
    let argument = |length: usize| {
        let (mut host, contract) = deployed(&contract("for i = 1, 10000 do local x = i end"));
        let call = LuaCall::invoke(contract, "main", [vec![b'x'; length][..].into()]);
        host.submit(&call.into_transaction(1)).unwrap()
    };
    assert!(argument(1_500).work > 3 * argument(100).work);
    // The longest value can be handled, with the most work there is.
    let longest = format!("local s = ('x'):rep({VALUE_BYTES_MAX}) state.put('k', s)");
    assert!(run_with(&longest, WORK_MAX).is_committed());
}

#[test]
fn nothing_of_the_host_is_within_reach() {
    let receipt = run("local seen, names = {}, {}
         local function visit(path, t)
            for k, v in next, t do
                names[#names + 1] = path .. tostring(k)
                if type(v) == 'table' and v ~= _G then visit(path .. tostring(k) .. '.', v) end
            end
         end
         visit('', _G) table.sort(names) return table.concat(names, ' ')");
    let expected = "_G block block.epoch block.timestamp tx tx.id";
    assert_eq!(values(&receipt), [expected.into()]);
    for name in [
        "os",
        "io",
        "debug",
        "package",
        "require",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "collectgarbage",
        "print",
        "warn",
        "string.dump",
        "math.random",
        "math.randomseed",
        "math.sin",
        "math.exp",
        "math.log",
        "coroutine.close",
        "getfenv",
        "setfenv",
        "newproxy",
    ] {
        let receipt = run(&format!("return {name} == nil"));
        assert_eq!(values(&receipt), [true.into()], "{name}");
    }
}

#[test]
fn no_address_can_be_seen() {
    for body in [
        "return tostring({})",
        "return tostring(print), tostring(function() end), tostring(coroutine.create(function() \
         end))",
        "return tostring(string), tostring(_G), tostring(state)",
        "return string.format('%s', {})",
        "return select(2, pcall(error, {}))",
        "return select(2, pcall(function() return {} .. 'x' end))",
        "return select(2, pcall(function() return {} < {} end))",
        "return select(2, pcall(string.rep, {}))",
        "return select(2, pcall(setmetatable, 1, {}))",
        "return tostring(setmetatable({}, {__name = 'thing'}))",
        "return string.format('%p', {})",
        "return ('x'):rep(3, {})",
    ] {
        let receipt = run(body);
        let output = String::from_utf8_lossy(&receipt.output).into_owned();
        assert!(!output.contains("0x"), "{body}: {output}");
    }
    assert_eq!(
        values(&run("return tostring({}), tostring(state.get)")),
        ["table".into(), "function".into()]
    );
}

#[test]
fn keys_that_hash_by_address_are_refused() {
    for body in [
        "local t = {} t[{}] = 1",
        "local t = {} local k = print or function() end t[k] = 1",
        "local t = {[{}] = 1}",
        "local t = {} rawset(t, {}, 1)",
        "local t = {} t[1], t[function() end] = 1, 2",
        "local t = {} t[coroutine.create(function() end)] = 1",
        "local t = setmetatable({}, {__newindex = rawset}) local k = {} t[k] = 1",
    ] {
        let receipt = run(body);
        assert_eq!(receipt.outcome, REFUSED, "{body}");
        assert!(text(&receipt).contains("a table key must be"), "{}", text(&receipt));
    }
}

#[test]
fn what_could_run_behind_the_back_is_refused() {
    let gc = run("setmetatable({}, {__gc = function() end})");
    assert!(text(&gc).contains("'__gc' is not available"));
    let concat = run("setmetatable({}, {__concat = function() end})");
    assert!(text(&concat).contains("'__concat' is not available"));
    // One that is set later does not join what is on its way.
    let late = "local m, kept = {} local t = setmetatable({}, m) \
                m.__concat = function(_, b) kept = b return 'late' end \
                local x = t .. 'secret' return x, type(kept), kept[1], (pcall(rawset, kept, 1, 1))";
    let expected = ["late".into(), "table".into(), LuaValue::Nil, false.into()];
    assert_eq!(values(&run(late)), expected);
    // One that is set later is never seen by Lua.
    assert!(run("local m = {} setmetatable({}, m) m.__gc = function() error() end").is_committed());
    assert_eq!(run("getmetatable('').__index = nil").outcome, REFUSED);
    assert_eq!(
        values(&run("return getmetatable(''), getmetatable(_G), getmetatable(string)")),
        [false; 3].map(LuaValue::Bool)
    );
    for body in [
        "string.rep = nil",
        "state.get = nil",
        "rawset(string, 'rep', nil)",
        "setmetatable(string, {})",
        "setmetatable(_G, {})",
        "math.pi = 3",
        "table.insert(table, 1)",
    ] {
        assert_eq!(run(body).outcome, REFUSED, "{body}");
    }
}

#[test]
fn deep_nesting_is_an_error() {
    for source in [
        format!("return {}1{}", "(".repeat(100_000 / 4), ")".repeat(100_000 / 4)),
        format!("return {}{}", "{".repeat(30_000), "}".repeat(30_000)),
        "if x then ".repeat(6_000),
        format!("return {}1", "not ".repeat(15_000)),
        format!("x = {}1", "1 .. ".repeat(10_000)),
    ] {
        let call = LuaCall::deploy(source).into_transaction(0);
        let receipt = Host::new(LuaRuntime::new()).submit(&call).unwrap();
        assert_eq!(receipt.outcome, REFUSED);
    }
    for body in [
        "local function f() return 1 + f() end return f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end \
         return t.x",
        "local function f() return pcall(f) end return f()",
        "local function f() return coroutine.wrap(f)() end return f()",
        "return (('('):rep(300) .. ('x'):rep(5)):find(('('):rep(40))",
        "local s = ('x'):rep(1000) return s:gsub('x', function() return (s:gsub('x', '')) end)",
    ] {
        run_with(body, WORK_MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_source_breaks_the_runtime(source: Vec<u8>) {
        any_source(source);
    }

    #[test]
    fn no_program_breaks_the_runtime(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..40),
    ) {
        any_source(words.join(" ").into_bytes());
        any_source(contract(&words.join(" ")).into_bytes());
    }
}

const WORDS: &[&str] = &[
    "local",
    "x",
    "=",
    "t",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ";",
    ".",
    ":",
    "..",
    "...",
    "#",
    "-",
    "function",
    "end",
    "return",
    "if",
    "then",
    "else",
    "for",
    "in",
    "do",
    "while",
    "true",
    "nil",
    "1",
    "2.5",
    "'s'",
    "[[s]]",
    "--",
    "\n",
    "goto",
    "::a::",
    "<close>",
    "<const>",
    "string.rep",
    "pairs",
    "state.get",
    "state.put",
    "error",
    "pcall",
    "setmetatable",
    "coroutine.wrap",
    "==",
    "<",
    "_ENV",
    "_G",
    "__index",
    "'__index'",
    "~",
    "//",
    "%",
    "not",
    "and",
    "or",
    "math.huge",
    "0/0",
];

fn any_source(source: Vec<u8>) {
    let mut host = Host::new(LuaRuntime::new());
    let id = contract_id(&source);
    let deploy = LuaCall::deploy(source).into_transaction(0);
    if host.submit(&deploy).is_ok_and(|receipt| receipt.is_committed()) {
        let first = invoke(&mut host, id, "main", &[1.into(), "a".into()]);
        host.restart();
        host.state.retain(|key, _| *key == source_key(&id));
        let second = invoke(&mut host, id, "main", &[1.into(), "a".into()]);
        assert_eq!(first, second);
    }
}

/// How slow the slowest known programs are; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement: cargo test --release -p parsec-runtimes lua -- --ignored --nocapture"]
fn measure_the_slowest_programs() {
    for (name, body) in [
        ("an empty loop", "while true do end"),
        (
            "rehashing",
            "local t = {} for i = 1, 16384 do t['k' .. i] = i end
             local i = 16384
             while true do t['k' .. (i - 16383)] = nil i = i + 1 t['k' .. i] = i end",
        ),
        (
            "comparing long strings for equality",
            "local s = ('x'):rep(20000) local a, b = s .. 'a', s .. 'b' while true do local _ = a \
             == b end",
        ),
        (
            "comparing strings of zeroes for order",
            "local s = ('\\0'):rep(250) local a, b = s .. 'a', s .. 'b' while true do local _ = a \
             < b end",
        ),
        (
            "looking for the first of a table that was emptied",
            "local t = {} for i = 1, 16384 do t['k' .. i] = i end for i = 1, 16384 do t['k' .. i] \
             = nil end
             while true do next(t) end",
        ),
    ] {
        let begin = std::time::Instant::now();
        let receipt = run_with(body, WORK_DEFAULT);
        eprintln!("{name}: {:?} for {} units", begin.elapsed(), receipt.work);
        assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::OutOfWork), "{name}");
    }
}
