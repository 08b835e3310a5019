-- What contracts see of Lua, part 1 of 3 (then library.lua, calls.lua): what the other parts are
-- built on. The parts run once per machine, before any contract.
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
-- INVARIANT: a C function that builds a string is called through `guarded`, and the host hears of
-- every string longer than all before it, because instructions that look at it take longer.
--
-- INVARIANT: nothing here that lasts longer than a call can be changed by a contract.

local host = ...

local type, rawget, getmetatable = type, rawget, getmetatable
local setmetatable_raw, rawset_raw = setmetatable, rawset
local error, pcall_raw, tostring_raw, tonumber_raw = error, pcall, tostring, tonumber
local string_format, math_tointeger, yield_raw = string.format, math.tointeger, coroutine.yield

local LONG = host.SHORT

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

-- Tells the host of a string that may be longer than all before it.
local function noted(s)
  if #s >= LONG and host.note(#s) then stop() end
  return s
end

-- What a C function that builds a string returned to pcall. Its buffer is no object of Lua: if
-- there is no memory for it, Lua does not collect garbage first, by which the host would see that
-- the limit was touched.
local function guarded(ok, ...)
  if ok then
    if type((...)) == "string" then noted((...)) end
    return ...
  end
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
    if rawget(metatable, "__concat") ~= nil then error("'__concat' is not available", 2) end
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

-- Lua puts the position in front of it.
local function raise(problem, level)
  if type(problem) == "string" then noted(problem) end
  level = integer(level, 2, "error", 1)
  error(problem, level > 0 and level + 1 or level)
end

---------------------------------------------------------------------------------------------------
-- Joining strings

-- `a .. b` is compiled as `a .. JOIN .. b`, which is `a .. (JOIN .. b)`: the first metamethod keeps
-- b, the second joins. Nothing runs between the two.
local right

local function joinable(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return value == value and value or "nan" end
  error("attempt to concatenate a " .. kind .. " value", 3)
end

local JOINED = setmetatable_raw({}, {
  __concat = function(a)
    local b = right
    right = nil
    return noted(joinable(a) .. joinable(b))
  end,
  __newindex = refuse,
  __metatable = false,
})
protected[JOINED] = true

local JOIN = setmetatable_raw({}, {
  __concat = function(_, b)
    right = b
    return JOINED
  end,
})

return {
  stop = stop, broken = broken, spend = spend, spend_on = spend_on, out_of_memory = out_of_memory,
  noted = noted, guarded = guarded, answered = answered, checked = checked,
  pcall = pcall, xpcall = xpcall, error = raise,
  bad = bad, text = text, integer = integer, check_table = check_table,
  check_function = check_function, check_key = check_key,
  readonly = readonly, rawset = rawset, setmetatable = setmetatable, ipairs = ipairs,
  tonumber = tonumber, tostring = tostring, join = JOIN,
  forget = function() right = nil end,
}
