-- reserve: charges an amount with every policy of a request, or with none of them.
--
-- KEYS[1..n]   subjects   one hash each, never the same twice
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      not_after  ms; later than this the call writes nothing
-- ARGV[3]      rid        the reservation's id
-- ARGV[4]      lease      ms until the reservation ends by itself
-- ARGV[5]      lost       what an ended lease does: "k" keeps the charges, "u" undoes them
-- ARGV[6..]    policies   eight each, those of a subject together: index of the subject, name, kind, limit,
--                         capacity (thousandths), window (ms), amount (thousandths), enforced ("1" or "0")
--
-- Returns {status, now, leases found ended, index of the refusing policy or 0, ms until this very request
-- would fit or -1 for never, charged with each policy ...}, or {status, now} where nothing was looked at.
-- Status: granted; refused; late (after not_after); aborted (released before it came).
--
-- Asked again with the same rid, it grants again and charges nothing. A refusal writes nothing, except
-- what had ended anyway, or went back with the clock.

local now, not_after, rid = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local lease, lost = tonumber(ARGV[4]), ARGV[5]
if now > not_after then return {'late', whole(now)} end

local policies, subjects = read_call(6, rid, now)
for _, subject in ipairs(subjects) do
  if subject.marker then return {'aborted', whole(now)} end
end
if subjects[1].own then return answer('granted', now, 0, 0, policies) end

for _, subject in ipairs(subjects) do sweep(subject, rid, now) end

local refusing, wait = 0, 0
for i, policy in ipairs(policies) do
  present(policy, now)
  if policy.enforced and policy.account.charged + policy.amount > policy.capacity then
    local its = waiting(policy.account, policy.amount, policy.capacity, now)
    if refusing == 0 or (wait ~= NEVER and (its == NEVER or its > wait)) then refusing, wait = i, its end
  end
end
if refusing > 0 then
  for _, subject in ipairs(subjects) do
    if subject.changed then save(subject, now) end
  end
  return answer('refused', now, refusing, wait, policies)
end

local records = {}
for i in ipairs(subjects) do records[i] = {stop = now + lease, lost = lost, charges = {}} end
for _, policy in ipairs(policies) do
  local at = charge(policy.account, policy.amount, now, policy.subject.entries > 0)
  table.insert(records[policy.at].charges, {name = policy.name, amount = policy.amount, at = at})
end
for i, subject in ipairs(subjects) do
  put(subject, '~' .. rid, records[i], now + lease + MARKER)
  subject.entries = subject.entries + 1
  save(subject, now)
end
return answer('granted', now, 0, 0, policies)
