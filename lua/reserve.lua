-- reserve: charges an amount with every policy of a request, or with none of them.
--
-- KEYS[1..n]   subjects   one hash each, never the same twice
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      not_after  ms; later than this the call writes nothing
-- ARGV[3]      rid        the reservation's id
-- ARGV[4]      lease      ms until the reservation ends by itself
-- ARGV[5]      undo       what an ended lease does: 0 keeps the charges, 1 undoes them
-- ARGV[6]      policies   27 bytes each (struct ">BBBddd"), those of a subject together: index of the subject,
--                         kind (1 leaky bucket, 2 sliding window, 3 fixed window, 4 calendar window,
--                         5 concurrency), enforced (1 or 0), limit, capacity (units), window (ms); then for
--                         each calendar window three successive boundaries (ms, ">ddd")
-- ARGV[7]      amounts    units, 8 bytes each (">d"), in the same order
-- ARGV[8..]    names      of the accounts
--
-- Returns {status, now, leases found ended, index of the refusing policy or 0, ms until this very request
-- would fit or -1 for never, charged with each policy ..., index and limit and capacity of each policy that
-- an operator overrides ...}, or {status, now} where nothing was looked at.
-- Status: granted; refused; blocked (by an operator, the wait being until when); late (after not_after); stale
-- (outside a calendar's boundaries); aborted (released before it came).
--
-- Asked again with the same rid, it grants again and charges nothing. A refusal writes nothing, except
-- what had ended anyway, or went back with the clock.

local now, not_after, rid = ledger_time(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local lease, undo = tonumber(ARGV[4]), tonumber(ARGV[5])
if now > not_after then return {'late', now} end

-- In how many ms the amount would fit; NEVER where waiting cannot help.
local function waiting(account)
  local room = account.capacity - account.amount
  if room < 0 then return NEVER end
  local kind, window, charged = account.kind, account.window, account.charged
  if kind == OPEN then return 1000 end
  if kind == BUCKET then
    return max(0, account.time - now) + ceil((charged - room) * window / account.limit)
  end
  local stop = account.start + window
  if kind ~= SLIDING then return stop - now end
  if charged <= room then return stop - floor((room - charged) * window / account.before) - now end
  return stop + window - floor(room * window / charged) - now
end

local accounts, subjects = open_call(6, rid, now, true)
if not accounts then return {'stale', now} end
for i = 1, #subjects do
  if subjects[i].marker then return {'aborted', now} end
end

local index, blocked = obey(accounts, now)
if subjects[1].own then return answer('granted', now, 0, 0, accounts) end

for i = 1, #subjects do sweep(subjects[i], rid, now) end

local function refuse(status, index, wait)
  for i = 1, #subjects do
    if subjects[i].changed then save(subjects[i], now) end
  end
  return answer(status, now, index, wait, accounts)
end

if index > 0 then return refuse('blocked', index, blocked) end

local refusing, wait = 0, 0
for i = 1, #accounts do
  local account = accounts[i]
  account.limit = account.asked
  if account.enforced and standing(account) + account.amount > account.capacity then
    local its = waiting(account)
    if refusing == 0 or (wait ~= NEVER and (its == NEVER or its > wait)) then refusing, wait = i, its end
  end
end
if refusing > 0 then return refuse('refused', refusing, wait) end

local charges = {}
for i = 1, #accounts do
  local account = accounts[i]
  local subject, name = account.subject, account.name
  local at = charge(account, account.amount, now, subject.entries > 0)
  charges[subject] = (charges[subject] or '') .. pack(CHARGE, account.amount, at, #name, name)
end
for i = 1, #subjects do
  local subject = subjects[i]
  put(subject, '~' .. rid, now + lease, undo, charges[subject], now + lease + MARKER)
  subject.entries = subject.entries + 1
  save(subject, now)
end
return answer('granted', now, 0, 0, accounts)
