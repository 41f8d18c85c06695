-- rule: puts an operator's rule for a subject in force, or takes it back: another limit, or a block.
--
-- KEYS[1]      subject
-- ARGV[1]      now        ms; "" asks the server for the time
-- ARGV[2]      name       of the account whose limit it is; "" blocks the subject
-- ARGV[3]      until      ms; 0 takes the rule back
-- ARGV[4]      limit      units; 0 for a block
-- ARGV[5]      capacity   units; 0 for a block
--
-- Returns {"ruled", now}.

local now, field = ledger_time(ARGV[1]), '=' .. ARGV[2]
local stop, limit, capacity = min(tonumber(ARGV[3]), LAST), tonumber(ARGV[4]), tonumber(ARGV[5])
local due, entries, expires, rules, cursor = read_hint(KEYS[1], redis.call('HGET', KEYS[1], '~'), now)
if stop == 0 then
  redis.call('HDEL', KEYS[1], field)
  return {'ruled', now}
end
local longer = stop > expires
if longer then expires = stop + SLACK end
local hint = pack(HINT, due, entries, expires, max(rules, stop)) .. cursor
redis.call('HSET', KEYS[1], '~', hint, field, pack(RULE, stop, limit, capacity))
if longer then redis.call('PEXPIRE', KEYS[1], expires - now) end
return {'ruled', now}
