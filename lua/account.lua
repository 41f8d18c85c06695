-- account: what the scripts share: the accounts of a subject, read, brought to now, charged and corrected.
--
-- The loader puts this file in front of every other script. It runs nothing by itself.
-- Amounts are whole units of the policy (thousandths of a token, millionths of a cost), times ms of the
-- ledger's clock. README.md, beside this file, describes the fields of a subject.
-- Functions that few calls need stand inside the one that needs them: a closure costs, at every call.

local BUCKET, SLIDING, FIXED, CALENDAR, OPEN = 1, 2, 3, 4, 5     -- kinds of accounts
local LOWS = 16          -- low levels remembered for one account
local ENDED = 500        -- ended leases looked at in one call
local SEEN = 5000        -- fields looked at for them
local MARKER = 600000    -- ms that the marker of an ended lease stays
local SLACK = 60000      -- ms that a TTL goes beyond the need, so that it need not be set at every call
local LAST = 2 ^ 52      -- ms; the last moment there is
local MOST = 2 ^ 60      -- units; more than anybody is ever charged
local NEVER = -1

local POLICY, STRIDE = '>BBBddd', 27       -- subject, kind, enforced, limit, capacity, window; bytes of it
local ACCOUNT, BARE = '>Bdddddd', 49     -- kind, charged, time, limit, window, start, before; bytes of it
local LOW = '>dd'                        -- time, level; behind the account
local HINT = '>dddd'                     -- due, entries, expires, ruled; and the cursor
local RECORD = '>dB'                     -- stop, undo; and the charges
local CHARGE = '>ddBc0'                  -- amount, at, name
local RULE = '>ddd'                      -- until, limit, capacity

local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local pack, read = struct.pack, struct.unpack

local function ledger_time(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

-- Accounts ---------------------------------------------------------------------------------------

-- Remember that at this time the level was as low as this. Levels rise along the list: a lower one makes
-- those before it useless. Above LOWS entries the two nearest levels become one: the lower level, the
-- later time, so that what is given back can only be less.
local function push_low(account, time, level)
  local lows = account.lows or {}
  account.lows = lows
  local last = lows[#lows]
  if last and last.time > time then time = last.time end
  while #lows > 0 and lows[#lows].level >= level do lows[#lows] = nil end
  if #lows > 0 and lows[#lows].time == time then return end
  lows[#lows + 1] = {time = time, level = level}
  if #lows <= LOWS then return end
  local nearest = 1
  for i = 2, #lows - 1 do
    if lows[i + 1].level - lows[i].level < lows[nearest + 1].level - lows[nearest].level then nearest = i end
  end
  lows[nearest + 1].level = min(lows[nearest].level, lows[nearest + 1].level)
  table.remove(lows, nearest)
end

-- Bring an account to now. What leaves a bucket between two moments is the difference of a whole-numbered
-- function of time, so that however often somebody looks in between, the sum is the same. A stored time
-- ahead of now wins, but not by more than a minute or a window: then the account goes back with the clock,
-- keeps its charges, gives nothing back of earlier ones, and must be written, whatever comes of the call:
-- else it would go back at every look, and its charges stay.
-- `start` and `window`: those of a calendar that now lies in, where the call's policy says them; where it
-- does not, the account is left as it is outside its own, for nobody can tell where another begins.
local function roll(account, now, start, window)
  local kind, time = account.kind, account.time
  if kind == OPEN then return end
  local length = account.window
  local stop = account.start + length
  if kind == CALENDAR and not start and (now < account.start or now >= stop) then return end
  if now < time then
    if time - now <= max(60000, length) then return end
    push_low(account, time + 1, kind == BUCKET and account.charged or 0)
    account.fell = true
  elseif kind == BUCKET then
    local limit, new, old = account.limit, now % length, time % length
    local parts = floor(new * limit / length) - floor(old * limit / length)
    local level = account.charged - ((now - new) - (time - old)) / length * limit - parts
    account.charged = level > 0 and level or 0
  end
  account.time = now
  if kind == BUCKET then return end
  if now >= stop then
    account.before = kind == SLIDING and now < stop + length and account.charged or 0
    account.charged = 0
  end
  if now >= stop or now < account.start then
    if kind == CALENDAR then
      account.start, account.window = start, window
    else
      account.start = now - now % length
    end
  end
end

-- What counts as charged: of a sliding window's predecessor as much as still lies within its reach.
local function standing(account)
  if account.before == 0 then return account.charged end
  local rest = max(0, account.start + account.window - account.time)
  return account.charged + ceil(account.before * rest / account.window)
end

-- Charge, and say which moment it counts for. `remember`: somebody may yet be given back from before.
local function charge(account, amount, now, remember)
  if not remember then
    account.lows = nil
  elseif account.kind == BUCKET and amount > 0 then
    push_low(account, account.time, account.charged)
  end
  account.charged = account.charged + amount
  return max(now, account.time)
end

-- Give back what was charged at a moment, as far as the law allows: no more than the lowest level since,
-- for below that it would have drained without it, and nothing to a window that is over.
local function give_back(account, amount, at)
  local where = 'charged'
  if account.kind ~= BUCKET and account.kind ~= OPEN and at < account.start then
    if account.kind ~= SLIDING or at < account.start - account.window then return end
    where = 'before'
  end
  local back, lows = min(amount, account[where]), account.lows
  local first = lows and #lows + 1 or 1
  while first > 1 and lows[first - 1].time > at do
    first = first - 1
    back = min(back, lows[first].level)
  end
  account[where] = account[where] - back
  for i = first, lows and #lows or 0 do lows[i].level = lows[i].level - back end
end

-- Subjects ---------------------------------------------------------------------------------------

-- The account that is written there, at that time; nil where there is none, or it cannot be read. What is not
-- a number is not above anything either, so that each of these must be asked for.
local function read_account(text)
  if not text or #text < BARE or (#text - BARE) % 16 > 0 then return nil end
  local kind, charged, time, limit, window, start, before = read(ACCOUNT, text)
  if not (kind >= BUCKET and kind <= OPEN and charged >= 0 and charged <= MOST
    and (before == 0 or kind == SLIDING and before > 0 and before <= MOST)
    and time >= 0 and time <= LAST and start >= 0 and start <= LAST and limit >= 0 and limit <= MOST
    and (window > 0 or kind == OPEN) and window <= LAST) then return nil end
  local account = {
    kind = kind, charged = charged, time = time, limit = limit, window = window, start = start, before = before,
    lows = nil, amount = 0, capacity = 0, enforced = false, asked = 0, subject = nil, name = nil, over = nil,
    fresh = false,
  }
  if #text > BARE then
    account.lows = {}
    for i = BARE + 1, #text, 16 do
      local when, level = read(LOW, text, i)
      if not (when >= 0 and level >= 0) then return nil end
      table.insert(account.lows, {time = when, level = level})
    end
  end
  return account
end

local function write_account(account)
  local text = pack(
    ACCOUNT, account.kind, account.charged, account.time, account.limit, account.window, account.start, account.before
  )
  if account.lows then
    for _, low in ipairs(account.lows) do text = text .. pack(LOW, low.time, low.level) end
  end
  return text
end

-- A record is a reservation or a marker: {stop, undo, charges}, a charge being {amount, at, name}. One that
-- cannot be read has ended, and what it charged stays.
local function parse_record(text)
  local stop, undo, at = read(RECORD, text)
  local charges, good = {}, stop >= 0 and stop <= LAST
  while at <= #text do
    local amount, time, name, after = read(CHARGE, text, at)
    good = good and amount >= 0 and amount <= MOST and time >= 0
    charges[#charges + 1] = {amount = amount, at = time, name = name}
    at = after
  end
  return good and {stop = stop, undo = undo, charges = charges}
end

local function read_record(text)
  local well, record = pcall(parse_record, text)
  return well and record or {stop = 0, undo = 0, charges = {}}
end

-- The hint that is written there, as due, entries, expires, ruled and cursor. Where it cannot be read: all is
-- to be looked at now, there may be rules, and the key lives as long as the server says.
local function read_hint(key, text, now)
  if not text then return 0, 0, 0, 0, '0' end
  if #text > 32 then
    local due, entries, expires, ruled, after = read(HINT, text)
    if due >= 0 and due % 1 == 0 and entries >= 0 and entries % 1 == 0
      and expires >= 0 and expires <= LAST + SLACK and ruled >= 0 and ruled % 1 == 0 then
      return due, entries, expires, ruled, string.sub(text, after)
    end
  end
  local expires = now + max(0, redis.call('PTTL', key))
  return 1, 1, expires, expires, '0'
end

-- Let a record be written, with what it charges as text, and the key live so long.
local function put(subject, field, stop, undo, charges, lasts)
  local set = subject.set
  set[#set + 1] = field
  set[#set + 1] = pack(RECORD, stop, undo) .. charges
  if lasts > subject.need then subject.need = lasts end
  if subject.due == 0 or stop < subject.due then subject.due = stop end
end

local ended_leases = 0 -- found by this call, in all subjects

-- Look after the leases and markers that have ended, when the hint says that one has. Not after `mine`.
local function sweep(subject, mine, now)
  if subject.due == 0 or now < subject.due then return end

  local function account_of(name)
    local account = subject.accounts[name]
    if not account then
      account = read_account(redis.call('HGET', subject.key, name))
      if account then roll(account, now) end
      subject.accounts[name] = account
    end
    return account
  end

  -- A lease has ended: concurrency is given back always, the rest where the record says so. What stays
  -- charged goes into a marker, for a late settle.
  local function lose(rid, record)
    local charges = ''
    for _, one in ipairs(record.charges) do
      local account = account_of(one.name)
      if account and (record.undo == 1 or account.kind == OPEN) then
        give_back(account, one.amount, one.at)
        one.amount = 0
      end
      charges = charges .. pack(CHARGE, one.amount, one.at, #one.name, one.name)
    end
    ended_leases = ended_leases + 1
    subject.gone[#subject.gone + 1] = '~' .. rid
    put(subject, '!' .. rid, now + MARKER, record.undo, charges, now + MARKER)
  end

  local cursor, seen, ended, left, earliest, met = subject.cursor, 0, 0, 0, math.huge, {}
  if not string.find(cursor, '^%d+$') or #cursor > 19 then cursor = '0' end
  local partial = cursor ~= '0'
  repeat
    local page = redis.call('HSCAN', subject.key, cursor, 'COUNT', 1000)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local field = page[2][i]
      local sort, rid = string.sub(field, 1, 1), string.sub(field, 2)
      if (sort == '~' or sort == '!') and rid ~= '' and rid ~= mine and not met[field] then
        met[field] = true
        local record = read_record(page[2][i + 1])
        local last = sort == '!' and record.stop == now    -- a call may still be carried out in it
        left = left + 1
        if record.stop > now or last then
          earliest = min(earliest, record.stop)
        elseif ended < ENDED then
          ended = ended + 1
          if sort == '~' then
            lose(rid, record)
          else
            subject.gone[#subject.gone + 1] = field
            subject.entries, left = subject.entries - 1, left - 1
          end
        end
      end
    end
    seen = seen + #page[2] / 2
  until cursor == '0' or ended >= ENDED or seen >= SEEN
  if partial or cursor ~= '0' or ended >= ENDED then
    earliest = now
  else -- all were seen, and are counted anew
    subject.entries = left + (subject.own and 1 or 0) + (subject.marker and 1 or 0)
  end
  subject.cursor = ended >= ENDED and subject.cursor or cursor
  subject.due = max(now + 1000, min(earliest, now + MARKER))
  subject.changed = true
end

-- Write what was put, the accounts and the hint, in one command; one more where something ended, and one
-- where the key must live longer.
local function save(subject, now)
  local list, need = subject.set, subject.need
  for name, account in pairs(subject.accounts) do
    local kind, lasts = account.kind, 0
    list[#list + 1] = name
    list[#list + 1] = write_account(account)
    if kind == BUCKET then
      lasts = account.time + account.charged * account.window / account.limit
    elseif kind ~= OPEN then
      lasts = account.start + account.window * (kind == SLIDING and 2 or 1)
    end
    if lasts > need then need = lasts end
  end
  if subject.entries == 0 then subject.due = 0 end
  local longer = min(need, LAST) > subject.expires
  if longer then subject.expires = ceil(min(need, LAST)) + SLACK end
  list[#list + 1] = '~'
  list[#list + 1] = pack(HINT, subject.due, subject.entries, subject.expires, subject.ruled) .. subject.cursor
  if #subject.gone > 0 then redis.call('HDEL', subject.key, unpack(subject.gone)) end
  redis.call('HSET', subject.key, unpack(list))
  if longer then redis.call('PEXPIRE', subject.key, max(1, subject.expires - now)) end
end

-- Calls ------------------------------------------------------------------------------------------

-- What a call is about: the accounts of its policies, brought to now, with what the call says of each, and
-- its subjects. Arguments from `first` on: the policies, 27 bytes each, those of a subject together, and
-- behind them 24 for each calendar (three successive boundaries); the amounts, 8 bytes each; the names.
-- Nil where now lies outside a calendar's boundaries. `terms`: whether limits are asked for, and not only
-- accounts.
local function open_call(first, rid, now, terms)
  local policies, amounts, names = ARGV[first], ARGV[first + 1], first + 1
  local accounts, subjects, stored = {}, {}, {}
  local count = #ARGV - names
  local calendar = count * STRIDE + 1
  for i = 1, count do
    local place = (i - 1) * STRIDE + 1
    local at, kind = policies:byte(place, place + 1)
    local subject, name = subjects[at], ARGV[names + i]
    if not subject then
      local last = i
      while last < count and policies:byte(last * STRIDE + 1) == at do last = last + 1 end
      local got = redis.call('HMGET', KEYS[at], '~', '~' .. rid, '!' .. rid, unpack(ARGV, names + i, names + last))
      subject = {
        key = KEYS[at], own = got[2], marker = got[3], accounts = {}, set = {}, gone = {}, need = 0,
        due = 0, entries = 0, expires = 0, ruled = 0, cursor = '0', changed = false,
      }
      subjects[at] = subject
      subject.due, subject.entries, subject.expires, subject.ruled, subject.cursor =
        read_hint(subject.key, got[1], now)
      for j = i, last do stored[j] = got[j - i + 4] end
    end
    local account = read_account(stored[i])
    if account and account.kind ~= kind then account = nil end
    local _, enforced, limit, capacity, window, start
    if terms or not account or kind == CALENDAR then
      _, _, enforced, limit, capacity, window = read(POLICY, policies, place)
      start = (kind == BUCKET or kind == OPEN) and 0 or now - now % window
    end
    if kind == CALENDAR then
      local one, two, three
      one, two, three, calendar = read('>ddd', policies, calendar)
      if now < one or now >= three then return nil end
      start = now < two and one or two
      window = (now < two and two or three) - start
    end
    if account then
      roll(account, now, start, window)
      if account.fell then subject.changed = true end
    else
      account = {
        kind = kind, charged = 0, time = now, limit = limit, window = window, start = start, before = 0,
        lows = nil, amount = 0, capacity = 0, enforced = false, asked = 0, subject = nil, name = nil, fresh = true,
      }
    end
    account.name, account.subject, account.amount = name, subject, read('>d', amounts, i * 8 - 7)
    if terms then account.enforced, account.capacity, account.asked = enforced == 1, capacity, limit end
    subject.accounts[name] = account
    accounts[i] = account
  end
  return accounts, subjects
end

local ruled = {} -- by an operator: index of the account, limit, capacity, for each

-- Until when, limit and capacity of a rule; until long ago where there is none, or it cannot be read.
local function read_rule(text)
  if text and #text == 24 then
    local stop, limit, capacity = read(RULE, text)
    if limit >= 0 and limit <= MOST and capacity >= 0 and capacity <= MOST then return stop, limit, capacity end
  end
  return 0, 0, 0
end

-- Put an operator's rules in force, where the hint says that there are some. Returns the index of an account
-- whose subject is blocked, and until when; or 0 and 0.
local function obey(accounts, now)
  local index, blocked = 0, 0
  for i = 1, #accounts do
    local account = accounts[i]
    local subject = account.subject
    if subject.ruled > now then
      local stop = read_rule(redis.call('HGET', subject.key, '='))
      if stop > now and stop > blocked then index, blocked = i, stop end
      local over, limit, capacity = read_rule(redis.call('HGET', subject.key, '=' .. account.name))
      if over > now then
        account.asked, account.capacity = limit, capacity
        for _, number in ipairs({i, limit, capacity}) do ruled[#ruled + 1] = number end
      end
    end
  end
  return index, blocked
end

local function answer(status, now, refusing, wait, accounts)
  local list = {status, now, ended_leases, refusing, wait}
  for i = 1, #accounts do list[i + 5] = standing(accounts[i]) end
  for i = 1, #ruled do list[#list + 1] = ruled[i] end
  return list
end
