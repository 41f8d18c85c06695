-- renew: moves the lease of a reservation on, and charges what it has produced beyond its charge.
--
-- KEYS[1..n]   subjects   those of the reservation
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      not_after  ms; later than this the call writes nothing
-- ARGV[3]      rid        the reservation's id
-- ARGV[4]      lease      ms from now until the reservation ends by itself
-- ARGV[5]      lost       what an ended lease does: "k" keeps the charges, "u" undoes them
-- ARGV[6..]    policies   eight each, as reserve had them, the amount being what was used so far, in total
--
-- Returns {status, now, leases found ended, 0, 0, charged with each policy ...}.
-- Status: renewed; gone (ended or settled before); late (after not_after).

local now, not_after, rid = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local lease, lost = tonumber(ARGV[4]), ARGV[5]
if now > not_after then return {'late', whole(now)} end

local EXTRAS = 4    -- separate charges of a policy in one record; more become one, at the earlier moment

local policies, subjects = read_call(6, rid, now)

local function charge_excess(record, policy)
  local sum, last, count = 0, nil, 0
  for _, one in ipairs(record.charges) do
    if one.name == policy.name then sum, last, count = sum + one.amount, one, count + 1 end
  end
  local excess = policy.amount - sum
  if not last or excess <= 0 then return end
  local at = charge(policy.account, excess, now, true)
  if count < EXTRAS then
    table.insert(record.charges, {name = policy.name, amount = excess, at = at})
  else
    last.amount = last.amount + excess
  end
end

local status = 'renewed'
for i, subject in ipairs(subjects) do
  if subject.own then
    local record = read_record(subject.own)
    record.stop, record.lost = now + lease, lost
    for _, policy in ipairs(policies) do
      if policy.at == i and policy.account then charge_excess(record, policy) end
    end
    sweep(subject, rid, now)
    put(subject, '~' .. rid, record, record.stop + MARKER)
    save(subject, now)
  else
    status = 'gone'
  end
end
return answer(status, now, 0, 0, policies)
