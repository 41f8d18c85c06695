-- reset: makes what is charged zero, and nothing else: what is open stays open, no TTL changes.
--
-- KEYS[1]      subject
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2..]    policies   eight each, as in reserve; the amount is not looked at
--
-- Returns {"reset", now, 0, 0, 0, charged with each policy ...}.
--
-- The accounts begin anew a millisecond later, so that what was admitted before gives nothing back to them.

local now = ledger_time(ARGV[1])
local policies, subjects = read_call(2, '', now)
local subject = subjects[1]
for _, policy in ipairs(policies) do
  local account = policy.account
  if account and account.kind ~= 'concurrency' then
    account.charged = 0
    account.time = math.max(now, account.time) + 1
    push_low(account, account.time, 0)
    redis.call('HSET', subject.key, policy.name, write_account(account))
  end
end
return answer('reset', now, 0, 0, policies)
