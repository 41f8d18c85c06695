-- reset: makes what is charged zero, and nothing else: what is open stays open, no TTL changes.
--
-- KEYS[1]      subject
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      policies   as in reserve
-- ARGV[3]      amounts    as in reserve; not looked at
-- ARGV[4..]    names      of the accounts
--
-- Returns {"reset", now, 0, 0, 0, charged with each policy ...}, or {"stale", now} outside a calendar's
-- boundaries.
--
-- An account begins anew a millisecond later, so that what was admitted before gives nothing back to it. In
-- the last one of a window nothing that is admitted gives anything back.

local now = ledger_time(ARGV[1])
local accounts, subjects = open_call(2, '', now)
if not accounts then return {'stale', now} end
for _, account in ipairs(accounts) do
  if not account.fresh and account.kind ~= OPEN then
    local time = max(now, account.time) + 1
    account.charged, account.before = 0, 0
    push_low(account, time, 0)
    if account.kind == BUCKET or time < account.start + account.window then account.time = time end
    redis.call('HSET', subjects[1].key, account.name, write_account(account))
  end
end
return answer('reset', now, 0, 0, accounts)
