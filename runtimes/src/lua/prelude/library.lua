-- What contracts see of Lua, part 2 of 3: the libraries. Returns their tables, which contracts
-- must not get hold of but through `readonly`.

local host, base = ...

local type, select, getmetatable, error, pcall_raw = type, select, getmetatable, error, pcall
local string_byte, string_format, string_pack = string.byte, string.format, string.pack
local string_rep, string_sub = string.rep, string.sub
local table_concat, table_unpack = table.concat, table.unpack

local stop, spend, spend_on = base.stop, base.spend, base.spend_on
local out_of_memory = base.out_of_memory
local guarded, answered, bad, text = base.guarded, base.answered, base.bad, base.text
local integer, check_table, check_function = base.integer, base.check_table, base.check_function
local tostring = base.tostring

local NAN = host.nan
local UNPACK_MAX = 8000
local LONG = host.SHORT

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
  local parts = plain(t, i, j)
  for k = 1, count do
    local part = parts[k]
    if part ~= part then parts[k] = "nan" end
  end
  t, i, j = parts, 1, count
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
  if n * size >= LONG and host.note(n * size) then stop() end
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
-- The tables

local strings = {
  byte = byte, char = building(string.char), find = find, format = format, gmatch = gmatch,
  gsub = gsub, len = string.len, lower = building(string.lower), match = match, pack = pack,
  packsize = on_all(string.packsize, "packsize"), rep = rep, reverse = building(string.reverse),
  sub = string_sub, unpack = on_all(string.unpack, "unpack"), upper = building(string.upper),
}

local tables = {
  concat = concat, insert = insert, move = move, remove = remove, sort = sort, unpack = unpack,
  pack = function(...) return { n = select("#", ...), ... } end,
}

local maths = {
  abs = math.abs, ceil = math.ceil, floor = math.floor, fmod = math.fmod, huge = math.huge,
  max = math.max, maxinteger = math.maxinteger, min = math.min, mininteger = math.mininteger,
  modf = math.modf, pi = math.pi, pow = pow, sqrt = math.sqrt, tointeger = math.tointeger,
  type = math.type, ult = math.ult,
}

local utf8s = {
  char = building(utf8.char), charpattern = utf8.charpattern,
  codepoint = on_all(utf8.codepoint, "codepoint"), codes = on_all(utf8.codes, "codes"),
  len = on_all(utf8.len, "len"), offset = on_all(utf8.offset, "offset"),
}

-- Arithmetic on strings would call the other operand's metamethods from C.
local string_metatable = getmetatable("")
for name in pairs(string_metatable) do string_metatable[name] = nil end
string_metatable.__index = strings
string_metatable.__metatable = false

return { table = tables, string = strings, math = maths, utf8 = utf8s }
