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
-- ARGV[8]      policies   as reserve had them
-- ARGV[9]      amounts    units, 8 bytes each (">d"): what was used, in total
-- ARGV[10..]   names      of the accounts
--
-- Returns {status, now, leases found ended}, or {status, now} where nothing was looked at.
-- Status: settled; corrected (the lease had ended: by its marker); charged (the ledger had lost the
-- reservation); again (nothing was left to do); forgotten (unknown, and too late to charge); late (after
-- not_after); stale (outside a calendar's boundaries).
--
-- The first write removes the reservation: that makes a repetition harmless, and passes when memory is full.

local now, not_after, rid, verb = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local first, mark, forget = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
if now > not_after then return {'late', now} end

local accounts, subjects = open_call(8, rid, now)
if not accounts then return {'stale', now} end
if verb == 'release' then
  for _, account in ipairs(accounts) do account.amount = 0 end
end

-- Make the charges of a record add up to what was used; of one account the latest is given back first.
local function correct(subject, record)
  local mine, charges = subject.accounts, record.charges
  for i = 1, #charges do
    local one = charges[i]
    local account = mine[one.name]
    if account then account.over = (account.over or -account.amount) + one.amount end
  end
  for i = #charges, 1, -1 do
    local one = charges[i]
    local account = mine[one.name]
    local over = account and account.over or 0
    if over > 0 then
      local back = min(over, one.amount)
      give_back(account, back, one.at)
      account.over = over - back
    elseif over < 0 then
      charge(account, -over, now, subject.entries > 0)
      account.over = 0
    end
  end
end

local function leave_marker(subject)
  put(subject, '!' .. rid, not_after, 0, '', not_after)
  subject.entries = subject.entries + 1
end

local function close(subject)
  if subject.own then
    redis.call('HDEL', subject.key, '~' .. rid)
    subject.entries = subject.entries - 1
    correct(subject, read_record(subject.own))
    if mark then leave_marker(subject) end
    return 'settled'
  end
  if subject.marker then
    local record = read_record(subject.marker)
    if #record.charges == 0 then return 'again' end
    correct(subject, record)
    put(subject, '!' .. rid, max(record.stop, not_after), 0, '', max(record.stop, not_after))
    return 'corrected'
  end
  if mark then leave_marker(subject) end
  if verb == 'release' or not first then return 'again' end
  if now > forget then return 'forgotten' end
  for _, account in ipairs(accounts) do
    if account.subject == subject then charge(account, account.amount, now, subject.entries > 0) end
  end
  return 'charged'
end

local status
for i = 1, #subjects do
  local subject = subjects[i]
  sweep(subject, rid, now)
  status = close(subject)
  if subject.changed or #subject.set > 0 or (status ~= 'again' and status ~= 'forgotten') then
    save(subject, now)
  end
end
return {status, now, ended_leases}
