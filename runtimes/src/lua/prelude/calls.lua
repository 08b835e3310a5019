-- What contracts see of Lua, part 3 of 3: coroutines, the host's services, and the environment of
-- a call. Returns the function that the host calls contracts with.

local host, base, library = ...

local type, select, rawequal, error = type, select, rawequal, error
local setmetatable_raw = setmetatable
local coroutine_create, coroutine_resume = coroutine.create, coroutine.resume
local coroutine_running, coroutine_status = coroutine.running, coroutine.status
local yield_raw = coroutine.yield

local spend, answered, checked = base.spend, base.answered, base.checked
local bad, text, integer, check_function = base.bad, base.text, base.integer, base.check_function
local readonly, tostring, pcall = base.readonly, base.tostring, base.pcall

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

local globals = {
  _VERSION = _VERSION, assert = assert, error = base.error, getmetatable = getmetatable,
  ipairs = base.ipairs, next = next, pairs = pairs, pcall = pcall, rawequal = rawequal,
  rawget = rawget, rawlen = rawlen, rawset = base.rawset, select = select,
  setmetatable = base.setmetatable, tonumber = base.tonumber, tostring = tostring, type = type,
  xpcall = base.xpcall,
  emit = emit, check_sig = check_sig, sha256 = hash(host.sha256, "sha256"),
  blake3 = hash(host.blake3, "blake3"),
  state = readonly(state),
  string = readonly(library.string),
  table = readonly(library.table),
  coroutine = readonly({
    create = create, isyieldable = isyieldable, resume = resume, running = running,
    status = status, wrap = wrap, yield = yield,
  }),
  math = readonly(library.math),
  utf8 = readonly(library.utf8),
}

---------------------------------------------------------------------------------------------------
-- Calls

local ENVIRONMENT = { __index = globals, __metatable = false }

local function enter(chunk, name, environment, ...)
  local contract = chunk(environment, base.check_key, base.join)
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
  base.forget()
  local environment = setmetatable_raw({
    block = { epoch = epoch, timestamp = timestamp },
    tx = { id = id },
  }, ENVIRONMENT)
  environment._G = environment
  return finished(pcall(enter, chunk, name, environment, ...))
end
