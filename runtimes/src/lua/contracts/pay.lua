-- Payments, in the manner of PArSEC's pay contract.
--
-- An account is kept under "account_" and its 32-byte key: its balance as a number of 32 bytes,
-- big-endian, then the next sequence number in 8 bytes. A payee is credited by an addition that
-- does not read the account, so payments to one account don't wait for one another.

local ACCOUNT = ">c24I8I8"
local ACCOUNT_BYTES = 40
local ZEROES = ("\0"):rep(24)

local function name(key)
  if type(key) ~= "string" or #key ~= 32 then error("a key has 32 bytes", 0) end
  return "account_" .. key
end

-- The balance and the next sequence number of an account.
local function read(key)
  local stored = state.get(name(key))
  if not stored then return 0, 0 end
  -- One that was only ever credited ends after its balance.
  if #stored < ACCOUNT_BYTES then stored = stored .. ("\0"):rep(ACCOUNT_BYTES - #stored) end
  local high, balance, sequence = string.unpack(ACCOUNT, stored)
  if high ~= ZEROES or balance < 0 then error("the balance is out of range", 0) end
  return balance, sequence
end

local function write(key, balance, sequence)
  state.put(name(key), string.pack(ACCOUNT, ZEROES, balance, sequence))
end

local function check_amount(value)
  if math.type(value) ~= "integer" or value < 0 then
    error("an amount is a positive integer", 0)
  end
end

local function move(from, to, value, balance, sequence)
  if balance < value then error("the balance is too low", 0) end
  write(from, balance - value, sequence)
  if value > 0 then state.add(name(to), value) end
end

-- A payment that its payer signed: BIP-340, with the key `from`, over the SHA-256 of
-- `c32 I8 I8` (to, value, sequence), little-endian. A value of 0 touches only the payer, and makes
-- lower sequence numbers invalid.
local function pay(from, to, value, sequence, signature)
  check_amount(value)
  name(to)
  check_sig(from, signature, string.pack("<c32I8I8", to, value, sequence))
  local balance, expected = read(from)
  if math.ult(sequence, expected) then error("the sequence number is too low", 0) end
  move(from, to, value, balance, sequence + 1)
end

-- The same without signature and sequence number, where everybody may spend everything: for
-- measurements.
local function transfer(from, to, value)
  check_amount(value)
  local balance, sequence = read(from)
  move(from, to, value, balance, sequence)
end

local function balance(key)
  return (read(key))
end

return { pay = pay, transfer = transfer, balance = balance }
