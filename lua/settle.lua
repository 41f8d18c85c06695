-- settle: replaces what a reservation charged by what was really used, once.
--
-- KEYS[1..n]   subjects   those of the reservation
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      not_after  ms; later than this the call writes nothing
-- ARGV[3]      rid        the reservation's id
-- ARGV[4]      verb       "settle", or "release": all is given back
-- ARGV[5]      first      "1" where no try went before
-- ARGV[6]      mark       "1" leaves a marker until not_after, which refuses stragglers of this rid
-- ARGV[7]      forget     ms; a reservation the ledger knows nothing of is charged until then, and not after
-- ARGV[8..]    policies   eight each, as reserve had them, the amount being what was used, in total
--
-- Returns {status, now, leases found ended, 0, 0, charged with each policy ...}.
-- Status: settled; corrected (the lease had ended: by its marker); charged (the ledger had lost the
-- reservation); again (nothing was left to do); forgotten (unknown, and too late to charge); late (after
-- not_after).
--
-- The first write removes the reservation: that makes a repetition harmless, and passes when memory is full.

local now, not_after, rid, verb = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local first, mark, forget = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
if now > not_after then return {'late', whole(now)} end

local policies, subjects = read_call(8, rid, now)

local function correct_all(index, record)
  for _, policy in ipairs(policies) do
    if policy.at == index then
      correct(policy.subject, record, policy.name, verb == 'release' and 0 or policy.amount, now)
    end
  end
end

local function close(index, subject)
  if subject.own then
    redis.call('HDEL', subject.key, '~' .. rid)
    subject.entries = subject.entries - 1
    correct_all(index, read_record(subject.own))
    if mark then leave_marker(subject, rid, not_after) end
    return 'settled'
  end
  if subject.marker then
    local record = read_record(subject.marker)
    if #record.charges == 0 then return 'again' end
    correct_all(index, record)
    put(subject, '!' .. rid, {stop = math.max(record.stop, not_after), lost = 'k', charges = {}}, record.stop)
    return 'corrected'
  end
  if mark then leave_marker(subject, rid, not_after) end
  if verb == 'release' or not first then return 'again' end
  if now > forget then return 'forgotten' end
  for _, policy in ipairs(policies) do
    if policy.at == index then
      present(policy, now)
      charge(policy.account, policy.amount, now, subject.entries > 0)
    end
  end
  return 'charged'
end

local status
for i, subject in ipairs(subjects) do
  sweep(subject, rid, now)
  status = close(i, subject)
  if subject.changed or next(subject.set) or (status ~= 'again' and status ~= 'forgotten') then
    save(subject, now)
  end
end
return answer(status, now, 0, 0, policies)
