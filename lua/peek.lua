-- peek: says what is charged, and touches nothing.
--
-- KEYS[1]      subject
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2..]    policies   eight each, as in reserve; the amount is not looked at
--
-- Returns {"seen", now, 0, reservations and markers there are, 0, charged with each policy ...}.

local now = ledger_time(ARGV[1])
local policies, subjects = read_call(2, '', now)
return answer('seen', now, subjects[1].entries, 0, policies)
