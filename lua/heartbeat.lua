-- heartbeat: notes that a worker is alive, or has left, and counts those that are alive.
--
-- KEYS[1]   workers   a sorted set: who, by when they were last heard
-- ARGV[1]   now       ms; "" asks the server for the time
-- ARGV[2]   who       the worker's id
-- ARGV[3]   silence   ms after which a worker is taken for dead; 0: this one leaves
-- ARGV[4]   life      ms that the key lives when nobody is heard any more
--
-- Returns {status, now, 0, workers alive}. Status: noted; left.

local now, who, silence, life = ledger_time(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = KEYS[1]
local status = 'noted'
if silence > 0 then
  redis.call('ZADD', key, now, who)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. string.format('%.0f', now - silence))
  redis.call('PEXPIRE', key, life)
else
  redis.call('ZREM', key, who)
  status = 'left'
end
return {status, now, 0, redis.call('ZCARD', key)}
