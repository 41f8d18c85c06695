-- renew: moves the lease of a reservation on, and charges what it has produced beyond its charge.
--
-- KEYS[1..n]   subjects   those of the reservation
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      not_after  ms; later than this the call writes nothing
-- ARGV[3]      rid        the reservation's id
-- ARGV[4]      lease      ms from now until the reservation ends by itself
-- ARGV[5]      undo       what an ended lease does: 0 keeps the charges, 1 undoes them
-- ARGV[6]      policies   as reserve had them
-- ARGV[7]      amounts    units, 8 bytes each (">d"): what was used so far, in total
-- ARGV[8..]    names      of the accounts
--
-- Returns {status, now, leases found ended}, or {status, now} where nothing was looked at.
-- Status: renewed; gone (ended or settled before); late (after not_after); stale (outside a calendar's
-- boundaries).

local now, not_after, rid = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local lease, undo = tonumber(ARGV[4]), tonumber(ARGV[5])
if now > not_after then return {'late', now} end

local EXTRAS = 4    -- separate charges of a policy in one record; more become one, at the earlier moment

local accounts, subjects = open_call(6, rid, now)
if not accounts then return {'stale', now} end

local function charge_excess(charges, account)
  local sum, last, count = 0, nil, 0
  for _, one in ipairs(charges) do
    if one.name == account.name then sum, last, count = sum + one.amount, one, count + 1 end
  end
  local excess = account.amount - sum
  if not last or excess <= 0 then return end
  local at = charge(account, excess, now, true)
  if count < EXTRAS then
    charges[#charges + 1] = {name = account.name, amount = excess, at = at}
  else
    last.amount = last.amount + excess
  end
end

local status = 'renewed'
for i = 1, #subjects do
  local subject = subjects[i]
  if subject.own then
    local charges, text = read_record(subject.own).charges, ''
    for _, account in ipairs(accounts) do
      if account.subject == subject then charge_excess(charges, account) end
    end
    for _, one in ipairs(charges) do text = text .. pack(CHARGE, one.amount, one.at, #one.name, one.name) end
    sweep(subject, rid, now)
    put(subject, '~' .. rid, now + lease, undo, text, now + lease + MARKER)
    save(subject, now)
  else
    status = 'gone'
  end
end
return {status, now, ended_leases}
