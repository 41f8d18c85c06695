-- account: what the scripts share: the accounts of a subject, read, rolled forward, charged and corrected.
--
-- The loader puts this file in front of every other script. It runs nothing by itself.
-- Amounts are thousandths of a token (or of a request); times are ms of the ledger's clock.
-- README.md, beside this file, describes the fields of a subject.

local LOWS = 16          -- low levels remembered for one account
local ENDED = 500        -- ended leases looked at in one call
local SEEN = 5000        -- fields looked at for them
local MARKER = 600000    -- ms that the marker of an ended lease stays
local SLACK = 60000      -- ms that a TTL goes beyond the need, so that it need not be set at every call
local NEVER = -1

local function ledger_time(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do list[#list + 1] = word end
  return list
end

local function whole(number) return string.format('%.0f', number) end

-- Accounts ---------------------------------------------------------------------------------------

local function is_bucket(account) return account.kind == 'leaky-bucket' end
local function is_window(account) return account.kind == 'fixed-window' end

local function window_start(account) return account.time - account.time % account.window end
local function window_end(account) return window_start(account) + account.window end

local function new_account(kind, limit, window, now)
  return {kind = kind, limit = limit, window = window, charged = 0, time = now, lows = {}}
end

local function read_account(text)
  local word = words(text)
  local account = {
    kind = word[1], limit = tonumber(word[2]), window = tonumber(word[3]),
    charged = tonumber(word[4]), time = tonumber(word[5]), lows = {},
  }
  for i = 6, #word do account.lows[i - 5] = tonumber(word[i]) end
  return account
end

local function write_account(account)
  local list = {account.kind, whole(account.limit), whole(account.window), whole(account.charged), whole(account.time)}
  for _, number in ipairs(account.lows) do list[#list + 1] = whole(number) end
  return table.concat(list, ' ')
end

-- What leaves a bucket between two moments: the difference of a whole-numbered function of time, so that
-- however often somebody looks in between, the sum is the same.
local function drained(account, from, to)
  local limit, window = account.limit, account.window
  local function part(time) return math.floor((time % window) * limit / window) end
  return (math.floor(to / window) - math.floor(from / window)) * limit + part(to) - part(from)
end

-- Remember that at this time the level was as low as this. Levels rise along the list: a lower one makes
-- those before it useless. Above LOWS entries the two nearest levels become one: the lower level, the
-- later time, so that what is given back can only be less.
local function push_low(account, time, level)
  local lows = account.lows
  local last = lows[#lows - 1]
  if last and last > time then time = last end
  while #lows > 0 and lows[#lows] >= level do lows[#lows] = nil; lows[#lows] = nil end
  if #lows > 0 and lows[#lows - 1] == time then return end
  lows[#lows + 1] = time
  lows[#lows + 1] = level
  if #lows <= 2 * LOWS then return end
  local nearest, gap = 2, lows[4] - lows[2]
  for i = 4, #lows - 2, 2 do
    if lows[i + 2] - lows[i] < gap then nearest, gap = i, lows[i + 2] - lows[i] end
  end
  local lower = math.min(lows[nearest], lows[nearest + 2])
  table.remove(lows, nearest - 1)
  table.remove(lows, nearest - 1)
  lows[nearest] = lower
end

-- Bring an account to now. A stored time ahead of now wins, but not by more than a minute or a window:
-- then the account goes back with the clock, keeps its charges, gives nothing back of earlier ones, and
-- must be written, whatever comes of the call: else it would go back at every look, and its charges stay.
local function roll(account, now)
  local back = false
  if account.kind == 'concurrency' then return back end
  if now < account.time then
    if account.time - now <= math.max(60000, account.window) then return back end
    push_low(account, account.time + 1, is_bucket(account) and account.charged or 0)
    back = true
  elseif is_bucket(account) then
    account.charged = math.max(0, account.charged - drained(account, account.time, now))
  elseif now >= window_end(account) then
    account.charged = 0
  end
  account.time = now
  return back
end

-- A policy's limit or window may have changed since the account was written. What was admitted before the
-- window that its charges are of gives nothing back, were the new window to reach so far.
local function adopt(account, limit, window)
  if is_window(account) and window ~= account.window then push_low(account, window_start(account), 0) end
  account.limit, account.window = limit, window
end

-- Charge, and say which moment it counts for. `remember`: somebody may yet be given back from before.
local function charge(account, amount, now, remember)
  if not remember then
    account.lows = {}
  elseif is_bucket(account) and amount > 0 then
    push_low(account, account.time, account.charged)
  end
  account.charged = account.charged + amount
  return math.max(now, account.time)
end

-- Give back what was charged at a moment, as far as the law allows: no more than the lowest level since,
-- for below that it would have drained (or the window have ended) without it.
local function give_back(account, amount, at)
  if is_window(account) and at < window_start(account) then return end
  local lows = account.lows
  local back = math.min(amount, account.charged)
  for i = 1, #lows, 2 do
    if lows[i] > at then back = math.min(back, lows[i + 1]) end
  end
  account.charged = account.charged - back
  for i = 1, #lows, 2 do
    if lows[i] > at then lows[i + 1] = lows[i + 1] - back end
  end
end

-- In how many ms an amount would fit; NEVER where waiting cannot help.
local function waiting(account, amount, capacity, now)
  if amount > capacity then return NEVER end
  if is_window(account) then return window_end(account) - now end
  if not is_bucket(account) then return 1000 end
  local ahead = math.max(0, account.time - now)
  return ahead + math.ceil((account.charged + amount - capacity) * account.window / account.limit)
end

-- When an account will be as if never touched.
local function untouched(account)
  if is_window(account) then return window_end(account) end
  if not is_bucket(account) then return 0 end
  return account.time + math.ceil(account.charged * account.window / account.limit)
end

-- Subjects ---------------------------------------------------------------------------------------

local function open_subject(key, rid, names)
  local got = redis.call('HMGET', key, '~', '~' .. rid, '!' .. rid, unpack(names))
  local hint = words(got[1])
  local subject = {
    key = key, own = got[2], marker = got[3], stored = {}, accounts = {}, set = {}, gone = {}, need = 0,
    due = tonumber(hint[1] or 0), entries = tonumber(hint[2] or 0), expires = tonumber(hint[3] or 0),
    cursor = hint[4] or '0', -- where the next sweep begins
  }
  for i, name in ipairs(names) do subject.stored[name] = got[i + 3] or '' end
  return subject
end

-- The account of that name, brought to now; nil where there is none.
local function account_of(subject, name, now)
  if subject.accounts[name] then return subject.accounts[name] end
  local text = subject.stored[name] or redis.call('HGET', subject.key, name)
  if not text or text == '' then return nil end
  local account = read_account(text)
  if roll(account, now) then subject.changed = true end
  subject.accounts[name] = account
  return account
end

-- A record is a reservation or a marker: {end, lost, charges}, a charge being {name, amount, at}.
local function read_record(text)
  local word = words(text)
  local record = {stop = tonumber(word[1]), lost = word[2], charges = {}}
  for i = 3, #word, 3 do
    record.charges[#record.charges + 1] = {name = word[i], amount = tonumber(word[i + 1]), at = tonumber(word[i + 2])}
  end
  return record
end

local function write_record(record)
  local list = {whole(record.stop), record.lost}
  for _, one in ipairs(record.charges) do
    list[#list + 1] = one.name
    list[#list + 1] = whole(one.amount)
    list[#list + 1] = whole(one.at)
  end
  return table.concat(list, ' ')
end

local function put(subject, field, record, lasts)
  subject.set[field] = write_record(record)
  subject.need = math.max(subject.need, lasts)
  if subject.due == 0 or record.stop < subject.due then subject.due = record.stop end
end

local function leave_marker(subject, rid, stop)
  put(subject, '!' .. rid, {stop = stop, lost = 'k', charges = {}}, stop)
  subject.entries = subject.entries + 1
end

-- Make the charges of a record under one name add up to what was used; the latest is given back first.
local function correct(subject, record, name, used, now)
  local account = account_of(subject, name, now)
  if not account then return end
  local over = -used
  for _, one in ipairs(record.charges) do
    if one.name == name then over = over + one.amount end
  end
  if over < 0 then charge(account, -over, now, subject.entries > 0) end
  for i = #record.charges, 1, -1 do
    local one = record.charges[i]
    if one.name == name and over > 0 then
      local back = math.min(over, one.amount)
      give_back(account, back, one.at)
      over = over - back
    end
  end
end

local ended_leases = 0 -- found by this call, in all subjects

-- A lease has ended: concurrency is given back always, the rest where the record says `u` (undo). What
-- stays charged goes into a marker, for a late settle.
local function lose(subject, rid, record, now)
  ended_leases = ended_leases + 1
  for _, one in ipairs(record.charges) do
    local account = account_of(subject, one.name, now)
    if account and (record.lost == 'u' or account.kind == 'concurrency') then
      give_back(account, one.amount, one.at)
      one.amount = 0
    end
  end
  record.stop = now + MARKER
  subject.gone[#subject.gone + 1] = '~' .. rid
  put(subject, '!' .. rid, record, record.stop)
end

-- Look after the leases and markers that have ended, when the hint says that one has. Not after `mine`.
local function sweep(subject, mine, now)
  if subject.due == 0 or now < subject.due then return end
  local cursor, seen, ended, earliest, met = subject.cursor, 0, 0, math.huge, {}
  local partial = cursor ~= '0'
  repeat
    local page = redis.call('HSCAN', subject.key, cursor, 'COUNT', 1000)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local sort, rid = string.sub(page[2][i], 1, 1), string.sub(page[2][i], 2)
      if (sort == '~' or sort == '!') and rid ~= '' and rid ~= mine and not met[page[2][i]] then
        met[page[2][i]] = true
        local record = read_record(page[2][i + 1])
        local last = sort == '!' and record.stop == now    -- a call may still be carried out in it
        if record.stop > now or last then
          earliest = math.min(earliest, record.stop)
        elseif ended < ENDED then
          ended = ended + 1
          if sort == '~' then
            lose(subject, rid, record, now)
          else
            subject.gone[#subject.gone + 1] = '!' .. rid
            subject.entries = subject.entries - 1
          end
        end
      end
    end
    seen = seen + #page[2] / 2
  until cursor == '0' or ended >= ENDED or seen >= SEEN
  if partial or cursor ~= '0' or ended >= ENDED then earliest = now end
  subject.cursor = ended >= ENDED and subject.cursor or cursor
  subject.due = math.max(now + 1000, math.min(earliest, now + MARKER))
  subject.changed = true
end

local function save(subject, now)
  for name, account in pairs(subject.accounts) do
    subject.set[name] = write_account(account)
    subject.need = math.max(subject.need, untouched(account))
  end
  if #subject.gone > 0 then redis.call('HDEL', subject.key, unpack(subject.gone)) end
  if subject.entries == 0 then subject.due = 0 end
  local renew = subject.need > subject.expires
  if renew then subject.expires = subject.need + SLACK end
  local hint = {whole(subject.due), whole(subject.entries), whole(subject.expires), subject.cursor}
  local list = {'~', table.concat(hint, ' ')}
  for field, value in pairs(subject.set) do
    list[#list + 1] = field
    list[#list + 1] = value
  end
  redis.call('HSET', subject.key, unpack(list))
  if renew then redis.call('PEXPIRE', subject.key, whole(math.max(1, subject.expires - now))) end
end

-- Calls ------------------------------------------------------------------------------------------

-- The policies of a call, eight arguments each, and their subjects. Policies of one subject stand together.
local function read_call(from, rid, now)
  local policies, names, subjects = {}, {}, {}
  for i = from, #ARGV, 8 do
    local policy = {
      at = tonumber(ARGV[i]), name = ARGV[i + 1], kind = ARGV[i + 2], limit = tonumber(ARGV[i + 3]),
      capacity = tonumber(ARGV[i + 4]), window = tonumber(ARGV[i + 5]), amount = tonumber(ARGV[i + 6]),
      enforced = ARGV[i + 7] == '1',
    }
    policies[#policies + 1] = policy
    names[policy.at] = names[policy.at] or {}
    table.insert(names[policy.at], policy.name)
  end
  for i, key in ipairs(KEYS) do subjects[i] = open_subject(key, rid, names[i]) end
  for _, policy in ipairs(policies) do
    policy.subject = subjects[policy.at]
    policy.account = account_of(policy.subject, policy.name, now)
  end
  return policies, subjects
end

-- The account of a policy: the one that is there, under the policy's present limit, or a new one.
local function present(policy, now)
  if policy.account then
    adopt(policy.account, policy.limit, policy.window)
  else
    policy.account = new_account(policy.kind, policy.limit, policy.window, now)
    policy.subject.accounts[policy.name] = policy.account
  end
end

local function answer(status, now, refusing, wait, policies)
  local list = {status, whole(now), whole(ended_leases), whole(refusing), whole(wait)}
  for _, policy in ipairs(policies) do
    list[#list + 1] = whole(policy.account and policy.account.charged or 0)
  end
  return list
end
