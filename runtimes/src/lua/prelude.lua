-- What contracts see of Lua. Runs once per machine, before any contract, with the host's functions
-- as its argument; returns the function that the host calls contracts with, and the string metatable
-- made safe.
--
-- Whoever wants to stop a contract (no work left, a key outside the footprint) yields, and the host
-- drops the coroutine: an error could be caught. That only works if every frame can yield. So:
--
-- INVARIANT: no C function that calls back (through a function argument or a metamethod) is given
-- to contracts, except `pcall` and `pairs`, which let yields through. What Lua's library does in C
-- with callbacks is done in Lua here, which is also how its work is counted.
--
-- INVARIANT: whatever runs for a time that the size of its arguments decides charges for it.
--
-- INVARIANT: a C function that builds a string is called through `guarded`.
--
-- INVARIANT: nothing here that lasts longer than a call can be changed by a contract.

local host = ...

local type, select, next, rawequal, rawget, rawlen = type, select, next, rawequal, rawget, rawlen
local getmetatable, setmetatable_raw, rawset_raw = getmetatable, setmetatable, rawset
local error, assert, pcall_raw, tostring_raw = error, assert, pcall, tostring
local tonumber_raw = tonumber
local pairs = pairs
local coroutine_create, coroutine_resume = coroutine.create, coroutine.resume
local coroutine_running, coroutine_status = coroutine.running, coroutine.status
local yield_raw = coroutine.yield
local string_byte, string_format, string_pack = string.byte, string.format, string.pack
local string_rep, string_sub = string.rep, string.sub
local table_concat, table_unpack = table.concat, table.unpack
local math_tointeger, math_type = math.tointeger, math.type

local NAN = host.nan
local UNPACK_MAX = 8000
local LONG = 256

---------------------------------------------------------------------------------------------------
-- Stopping

-- Never returns: the host looks at why it is asked for nothing, and drops the coroutine.
local function stop()
  while true do yield_raw() end
end

-- A failure of the host itself, which a contract must not catch.
local function broken()
  while true do yield_raw(host.BROKEN) end
end

local function spend(units)
  if host.spend(units) then stop() end
end

-- Charges for looking at all of a string. Short ones are a part of the instruction.
local function spend_on(s)
  if #s > LONG then spend(#s // 8) end
end

-- The answer of a host function: false and what is wrong, or false alone if no work is left.
local function answered(first, ...)
  if first == false then
    local problem = ...
    if problem == nil then stop() end
    error(problem, 2)
  end
  return first, ...
end

local function out_of_memory()
  host.touch()
  stop()
end

-- What a C function that builds a string returned to pcall. Its buffer is no object of Lua: if
-- there is no memory for it, Lua does not collect garbage first, by which the host would see that
-- the limit was touched.
local function guarded(ok, ...)
  if ok then return ... end
  local problem = ...
  if problem == "not enough memory" then out_of_memory() end
  error(problem, 3)
end

local function checked(ok, ...)
  -- Contracts have no userdata: it is an error that the host raised.
  if not ok and type((...)) == "userdata" then broken() end
  return ok, ...
end

local function pcall(f, ...)
  return checked(pcall_raw(f, ...))
end

local function handled(handler, ok, ...)
  if ok then return true, ... end
  return false, handler(...)
end

-- The handler runs after the stack is unwound: on top of it, it could not yield.
local function xpcall(f, handler, ...)
  return handled(handler, pcall(f, ...))
end

---------------------------------------------------------------------------------------------------
-- Arguments

local function bad(position, name, expected, value)
  local found = value == nil and "no value" or type(value)
  error(string_format("bad argument #%d to '%s' (%s expected, got %s)",
    position, name, expected, found), 4)
end

local function text(value, position, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring_raw(value) end
  bad(position, name, "string", value)
end

local function integer(value, position, name, default)
  if value == nil and default then return default end
  local number = type(value) == "number" and math_tointeger(value)
    or type(value) == "string" and math_tointeger(tonumber_raw(value))
  if not number then bad(position, name, "integer", value) end
  return number
end

local function check_table(value, position, name)
  if type(value) ~= "table" then bad(position, name, "table", value) end
end

local function check_function(value, position, name)
  if type(value) ~= "function" then bad(position, name, "function", value) end
end

---------------------------------------------------------------------------------------------------
-- Tables and their keys

-- What contracts must not change although they hold it.
local protected = {}

local function refuse(_, name)
  error("attempt to change '" .. tostring_raw(name) .. "' of a library", 2)
end

local function readonly(library)
  local proxy = setmetatable_raw({}, {
    __index = library, __newindex = refuse, __metatable = false,
  })
  protected[proxy] = true
  return proxy
end

local KEY_TYPES = { string = true, number = true, boolean = true, ["nil"] = true }

-- Every key that a contract assigns to passes through here (see source.rs).
local function check_key(key)
  if KEY_TYPES[type(key)] then return key end
  error("a table key must be a string, a number or a boolean, not a " .. type(key), 2)
end

local function rawset(t, key, value)
  check_table(t, 1, "rawset")
  if protected[t] then refuse(t, key) end
  return rawset_raw(t, check_key(key), value)
end

local function setmetatable(t, metatable)
  check_table(t, 1, "setmetatable")
  if protected[t] then error("cannot change the metatable of a library", 2) end
  if metatable ~= nil then
    check_table(metatable, 2, "setmetatable")
    if rawget(metatable, "__gc") ~= nil then error("'__gc' is not available", 2) end
  end
  return setmetatable_raw(t, metatable)
end

local function ipairs_step(t, i)
  i = i + 1
  local value = t[i]
  if value ~= nil then return i, value end
end

local function ipairs(t)
  if t == nil then bad(1, "ipairs", "table", t) end
  return ipairs_step, t, 0
end

local function tonumber(value, base)
  if type(value) == "string" then spend_on(value) end
  return tonumber_raw(value, base)
end

-- Without the address that Lua shows.
local function tostring(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then
    if value ~= value then return "nan" end
    return tostring_raw(value)
  end
  if kind == "nil" or kind == "boolean" then return tostring_raw(value) end
  if kind == "table" and getmetatable(value) ~= nil then
    local metatable = host.metatable(value)
    local method = rawget(metatable, "__tostring")
    if method ~= nil then
      local shown = method(value)
      if type(shown) ~= "string" then error("'__tostring' must return a string", 2) end
      return shown
    end
    local name = rawget(metatable, "__name")
    if type(name) == "string" then return name end
  end
  return kind
end

---------------------------------------------------------------------------------------------------
-- Library: table

local function insert(t, ...)
  check_table(t, 1, "insert")
  local count, n = select("#", ...), #t
  if count == 1 then
    t[n + 1] = ...
    return
  end
  if count ~= 2 then error("wrong number of arguments to 'insert'", 2) end
  local at, value = ...
  at = integer(at, 2, "insert")
  if at < 1 or at > n + 1 then
    error("bad argument #2 to 'insert' (position out of bounds)", 2)
  end
  for i = n, at, -1 do t[i + 1] = t[i] end
  t[at] = value
end

local function remove(t, at)
  check_table(t, 1, "remove")
  local n = #t
  at = integer(at, 2, "remove", n)
  if at ~= n and (at < 1 or at > n + 1) then
    error("bad argument #2 to 'remove' (position out of bounds)", 2)
  end
  local value = t[at]
  while at < n do
    t[at] = t[at + 1]
    at = at + 1
  end
  t[at] = nil
  return value
end

-- How many elements there are from i to j; more than there can be if that is no integer.
local function span(i, j)
  if i > j then return 0 end
  local count = j - i + 1
  return count > 0 and count or math.maxinteger
end

-- The elements from i to j of a table that may have metamethods, in one that has none.
local function plain(t, i, j)
  local copy = {}
  for k = i, j do copy[k - i + 1] = t[k] end
  return copy
end

local function concat(t, separator, i, j)
  check_table(t, 1, "concat")
  separator = separator == nil and "" or text(separator, 2, "concat")
  i = integer(i, 3, "concat", 1)
  j = integer(j, 4, "concat", #t)
  local count = span(i, j)
  spend(count)
  if getmetatable(t) ~= nil then
    t, i, j = plain(t, i, j), 1, count
  end
  return guarded(pcall_raw(table_concat, t, separator, i, j))
end

local function unpack(t, i, j)
  i = integer(i, 2, "unpack", 1)
  j = integer(j, 3, "unpack", #t)
  local count = span(i, j)
  if count > 16 then spend(count) end
  if count > UNPACK_MAX then error("too many results to unpack", 2) end
  if type(t) ~= "table" or getmetatable(t) ~= nil then
    t, i, j = plain(t, i, j), 1, count
  end
  return table_unpack(t, i, j)
end

local function move(from, first, last, at, to)
  check_table(from, 1, "move")
  first, last = integer(first, 2, "move"), integer(last, 3, "move")
  at = integer(at, 4, "move")
  to = to == nil and from or to
  check_table(to, 5, "move")
  if last < first then return to end
  if first <= 0 and last >= math.maxinteger + first then
    error("bad argument #3 to 'move' (too many elements to move)", 2)
  end
  if at > math.maxinteger - (last - first) then
    error("bad argument #4 to 'move' (destination wrap around)", 2)
  end
  if at > last or at <= first or to ~= from then
    for i = 0, last - first do to[at + i] = from[first + i] end
  else
    for i = last - first, 0, -1 do to[at + i] = from[first + i] end
  end
  return to
end

local function ascending(a, b)
  return a < b
end

-- Merges the two sorted runs of `from` that begin at `low` and `middle`, up to `high`.
local function merge(from, to, low, middle, high, before)
  local left, right = low, middle
  for k = low, high - 1 do
    if left < middle and (right >= high or not before(from[right], from[left])) then
      to[k], left = from[left], left + 1
    else
      to[k], right = from[right], right + 1
    end
  end
end

-- A merge sort: stable, and at its end whatever the comparison says.
local function sort(t, before)
  check_table(t, 1, "sort")
  if before == nil then before = ascending else check_function(before, 2, "sort") end
  local n = #t
  if n < 2 then return end
  local from, to = plain(t, 1, n), {}
  local width = 1
  while width < n do
    for low = 1, n, 2 * width do
      local middle, high = low + width, low + 2 * width
      if middle > n + 1 then middle = n + 1 end
      if high > n + 1 then high = n + 1 end
      merge(from, to, low, middle, high, before)
    end
    from, to = to, from
    width = 2 * width
  end
  for i = 1, n do t[i] = from[i] end
end

---------------------------------------------------------------------------------------------------
-- Library: string

local function find(s, pattern, init, is_plain)
  s, pattern = text(s, 1, "find"), text(pattern, 2, "find")
  return answered(host.find(s, pattern, integer(init, 3, "find", 1), is_plain and true or false))
end

local function match(s, pattern, init)
  s, pattern = text(s, 1, "match"), text(pattern, 2, "match")
  return answered(host.match(s, pattern, integer(init, 3, "match", 1)))
end

local function gmatch(s, pattern, init)
  s, pattern = text(s, 1, "gmatch"), text(pattern, 2, "gmatch")
  local from, last = integer(init, 3, "gmatch", 1), -1
  if from < 0 then from = from + #s + 1 end
  if from < 1 then from = 1 end
  local function found(first, final, ...)
    if first == nil then return nil end
    from, last = final + 1, final
    if select("#", ...) == 0 then return string_sub(s, first, final) end
    return ...
  end
  return function()
    return found(answered(host.scan(s, pattern, from, last, false)))
  end
end

local REPLACEMENTS = { string = true, number = true, table = true, ["function"] = true }

local function replacement(by, kind, whole, ...)
  if kind == "string" then return answered(host.expand(by, whole, ...)) end
  local value
  if kind == "table" then
    value = by[select("#", ...) > 0 and (...) or whole]
  elseif select("#", ...) > 0 then
    value = by(...)
  else
    value = by(whole)
  end
  if not value then return whole end
  if type(value) == "string" then return value end
  if type(value) == "number" then return tostring(value) end
  error("invalid replacement value (a " .. type(value) .. ")", 4)
end

local function gsub(s, pattern, by, most)
  s, pattern = text(s, 1, "gsub"), text(pattern, 2, "gsub")
  local kind = type(by)
  if not REPLACEMENTS[kind] then bad(3, "gsub", "string/function/table", by) end
  if kind == "number" then by, kind = tostring(by), "string" end
  most = integer(most, 4, "gsub", #s + 1)
  local anchored = string_byte(pattern, 1) == 94
  local parts, size, count, from, last = {}, 0, 0, 1, -1
  local function replaced(first, final, ...)
    if first == nil then return false end
    parts[size + 1] = string_sub(s, from, first - 1)
    parts[size + 2] = replacement(by, kind, string_sub(s, first, final), ...)
    size, count, from, last = size + 2, count + 1, final + 1, final
    return not anchored
  end
  while count < most and replaced(answered(host.scan(s, pattern, from, last, true))) do end
  parts[size + 1] = string_sub(s, from)
  return guarded(pcall_raw(table_concat, parts)), count
end

local function rep(s, n, separator)
  s, n = text(s, 1, "rep"), integer(n, 2, "rep")
  separator = separator == nil and "" or text(separator, 3, "rep")
  -- Lua would count to n for nothing.
  local size = #s + #separator
  if n < 1 or size == 0 then return "" end
  if n > host.BYTES // size then out_of_memory() end
  return guarded(pcall_raw(string_rep, s, n, separator))
end

local function byte(s, i, j)
  s = text(s, 1, "byte")
  i = integer(i, 2, "byte", 1)
  j = integer(j, 3, "byte", i)
  spend_on(s)
  if i < 0 then i = i + #s + 1 end
  if j < 0 then j = j + #s + 1 end
  if i < 1 then i = 1 end
  if j > #s then j = #s end
  if j - i >= UNPACK_MAX then error("string slice too long", 2) end
  return string_byte(s, i, j)
end

-- The arguments, with the one NaN that is the same on every processor.
local function canonical(...)
  local n, values = select("#", ...), { ... }
  for i = 1, n do
    local value = values[i]
    if value ~= value and type(value) == "number" then values[i] = NAN end
  end
  return values, n
end

local function pack(form, ...)
  form = text(form, 1, "pack")
  spend_on(form)
  local values, n = canonical(...)
  return guarded(pcall_raw(string_pack, form, table_unpack(values, 1, n)))
end

local STRING_CONVERSION = string_byte("s")

local function format(form, ...)
  form = text(form, 1, "format")
  -- A letter for each argument that the format takes.
  local conversions = answered(host.conversions(form))
  local values, n = canonical(...)
  for i = 1, #conversions do
    if string_byte(conversions, i) == STRING_CONVERSION and i <= n then
      values[i] = tostring(values[i])
    end
  end
  return guarded(pcall_raw(string_format, form, table_unpack(values, 1, n)))
end

local function on_all(f, name)
  return function(s, ...)
    s = text(s, 1, name)
    spend_on(s)
    return guarded(pcall_raw(f, s, ...))
  end
end

local function building(f)
  return function(...) return guarded(pcall_raw(f, ...)) end
end

---------------------------------------------------------------------------------------------------
-- Library: coroutine

-- Marks what a contract yields, as against what is meant for the host.
local YIELDED = {}
local main

local function create(f)
  check_function(f, 1, "create")
  -- Its instructions are counted in steps of their own, the last of which is never reached.
  spend(host.TICK)
  return coroutine_create(f)
end

local function resumed(co, ok, ...)
  if not ok then return checked(false, ...) end
  if coroutine_status(co) == "dead" then return true, ... end
  if rawequal((...), YIELDED) then return true, select(2, ...) end
  -- The host is asked for something, or the work is used up: hand it up, and the answer down.
  return resumed(co, coroutine_resume(co, yield_raw(...)))
end

local function resume(co, ...)
  if type(co) ~= "thread" then bad(1, "resume", "coroutine", co) end
  return resumed(co, coroutine_resume(co, ...))
end

local function yield(...)
  if coroutine_running() == main then error("attempt to yield from outside a coroutine", 2) end
  return yield_raw(YIELDED, ...)
end

local function unwrapped(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

local function wrap(f)
  local co = create(f)
  return function(...) return unwrapped(resume(co, ...)) end
end

local function status(co)
  if type(co) ~= "thread" then bad(1, "status", "coroutine", co) end
  return coroutine_status(co)
end

local function running()
  local co = coroutine_running()
  return co, co == main
end

local function isyieldable()
  return coroutine_running() ~= main
end

---------------------------------------------------------------------------------------------------
-- Library: math

-- With integer exponents only: the C library's pow differs between processors.
local function pow(base, exponent)
  if type(base) ~= "number" then bad(1, "pow", "number", base) end
  exponent = integer(exponent, 2, "pow")
  if exponent < -4096 or exponent > 4096 then
    error("bad argument #2 to 'pow' (an exponent of at most 4096 expected)", 2)
  end
  local power, factor = 1.0, base + 0.0
  local left = exponent < 0 and -exponent or exponent
  while left > 0 do
    if left & 1 == 1 then power = power * factor end
    factor = factor * factor
    left = left >> 1
  end
  return exponent < 0 and 1.0 / power or power
end

---------------------------------------------------------------------------------------------------
-- The state, and other services of the host

local function ask(...)
  local ok, value = yield_raw(...)
  if ok then return value end
  error(value, 3)
end

local function check_string(value, position, name)
  if type(value) ~= "string" then bad(position, name, "string", value) end
end

local state = {
  get = function(key)
    check_string(key, 1, "get")
    local value = ask(host.GET, key)
    return value
  end,
  number = function(key)
    check_string(key, 1, "number")
    local value = ask(host.NUMBER, key)
    return value
  end,
  put = function(key, value)
    check_string(key, 1, "put")
    if value ~= nil then check_string(value, 2, "put") end
    ask(host.PUT, key, value)
  end,
  add = function(key, amount)
    check_string(key, 1, "add")
    ask(host.ADD, key, integer(amount, 2, "add"))
  end,
}

local function emit(topic, data)
  check_string(topic, 1, "emit")
  if data ~= nil then check_string(data, 2, "emit") end
  ask(host.EMIT, topic, data or "")
end

local function check_sig(key, signature, message)
  check_string(key, 1, "check_sig")
  check_string(signature, 2, "check_sig")
  check_string(message, 3, "check_sig")
  return answered(host.check_sig(key, signature, message))
end

local function hash(f, name)
  return function(s) return answered(f(text(s, 1, name))) end
end

---------------------------------------------------------------------------------------------------
-- What contracts see

local strings = {
  byte = byte, char = building(string.char), find = find, format = format, gmatch = gmatch, gsub = gsub,
  len = string.len, lower = building(string.lower), match = match, pack = pack,
  packsize = on_all(string.packsize, "packsize"), rep = rep, reverse = building(string.reverse),
  sub = string_sub, unpack = on_all(string.unpack, "unpack"), upper = building(string.upper),
}

local globals = {
  _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable,
  ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, rawequal = rawequal,
  rawget = rawget, rawlen = rawlen, rawset = rawset, select = select,
  setmetatable = setmetatable, tonumber = tonumber, tostring = tostring, type = type,
  xpcall = xpcall,
  emit = emit, check_sig = check_sig, sha256 = hash(host.sha256, "sha256"),
  blake3 = hash(host.blake3, "blake3"),
  state = readonly(state),
  string = readonly(strings),
  table = readonly({
    concat = concat, insert = insert, move = move, remove = remove, sort = sort, unpack = unpack,
    pack = function(...) return { n = select("#", ...), ... } end,
  }),
  coroutine = readonly({
    create = create, isyieldable = isyieldable, resume = resume, running = running,
    status = status, wrap = wrap, yield = yield,
  }),
  math = readonly({
    abs = math.abs, ceil = math.ceil, floor = math.floor, fmod = math.fmod, huge = math.huge,
    max = math.max, maxinteger = math.maxinteger, min = math.min, mininteger = math.mininteger,
    modf = math.modf, pi = math.pi, pow = pow, sqrt = math.sqrt, tointeger = math_tointeger,
    type = math_type, ult = math.ult,
  }),
  utf8 = readonly({
    char = building(utf8.char), charpattern = utf8.charpattern,
    codepoint = on_all(utf8.codepoint, "codepoint"), codes = on_all(utf8.codes, "codes"),
    len = on_all(utf8.len, "len"), offset = on_all(utf8.offset, "offset"),
  }),
}

-- Arithmetic on strings would call the other operand's metamethods from C.
local string_metatable = getmetatable("")
for name in pairs(string_metatable) do string_metatable[name] = nil end
string_metatable.__index = strings
string_metatable.__metatable = false

---------------------------------------------------------------------------------------------------
-- Calls

local ENVIRONMENT = { __index = globals, __metatable = false }

local function enter(chunk, name, environment, ...)
  local contract = chunk(environment, check_key)
  if type(contract) ~= "table" then error("a contract returns a table of functions", 0) end
  local f = contract[name]
  if type(f) ~= "function" then
    error("the contract has no function '" .. name .. "'", 0)
  end
  return f(...)
end

local function finished(ok, ...)
  if ok then return true, ... end
  local problem = ...
  local kind = type(problem)
  if kind == "string" then return false, problem end
  if kind == "number" then return false, tostring(problem) end
  return false, "the error is a value of type " .. kind
end

return function(chunk, name, epoch, timestamp, id, ...)
  main = coroutine_running()
  local environment = setmetatable_raw({
    block = { epoch = epoch, timestamp = timestamp },
    tx = { id = id },
  }, ENVIRONMENT)
  environment._G = environment
  return finished(pcall(enter, chunk, name, environment, ...))
end
