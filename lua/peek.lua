-- peek: says what is charged, and touches nothing.
--
-- KEYS[1]      subject
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      policies   as in reserve
-- ARGV[3]      amounts    as in reserve; not looked at
-- ARGV[4..]    names      of the accounts
--
-- Returns {"seen", now, 0, reservations and markers there are, until when it is blocked or 0, charged with each
-- policy ..., index and limit and capacity of each policy that an operator overrides ...}, or {"stale", now}
-- outside a calendar's boundaries.

local now = ledger_time(ARGV[1])
local accounts, subjects = open_call(2, '', now, true)
if not accounts then return {'stale', now} end
local _, blocked = obey(accounts, now)
return answer('seen', now, subjects[1].entries, blocked, accounts)
