-- What a benchmark adds to the pay contract, which is the local `pay` here: accounts come into being
-- with a balance. Anybody may call it, so that this is a contract to measure with and no money.

-- Opens an account with that balance for each 32 bytes of `keys`.
function pay.open(keys, balance)
  if #keys % 32 ~= 0 then error("a key has 32 bytes", 0) end
  local account = string.pack(">c24I8I8", ("\0"):rep(24), balance, 0)
  for first = 1, #keys, 32 do
    state.put("account_" .. keys:sub(first, first + 31), account)
  end
end

return pay
