-- The best first job that fits what is left of this worker's host, under a new token.
-- ARGV: worker, nonce, offer JSON, lingering needs JSON, lease seconds, record version that the worker knows, highest
-- token that it has seen, ms after which a waiting job reserves a host, id of the worker's home, ms between two probes.
-- Answers with the record as it is then, as JSON: a worker needs no second call, and a parser that is fast.
-- Capacity in use is worked out here from the leases and the lingering sandboxes (I4): there is no counter beside it.
local worker, nonce, offer, lingering = ARGV[1], ARGV[2], cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local function claimed(id, token, attempt, probe)
  local row, record = redis.call('HGETALL', key('job:' .. id)), {}
  for index = 1, #row, 2 do record[row[index]] = row[index + 1] end
  return {'claimed', id, token, attempt, probe, cjson.encode(record)}
end
local last = redis.call('HMGET', key('nonce:' .. worker), 'nonce', 'id', 'token')
if last[1] == nonce then
  local held = get(last[2], 'state', 'token', 'attempt', 'probe')
  if held[1] == 'running' and held[2] == last[3] then
    return claimed(last[2], held[2], held[3], held[4] == held[2] and 'probe' or '')
  end
  return {'none'}
end
if redis.call('SISMEMBER', key('draining'), worker) == 1 then return {'none'} end
local owner = redis.call('HGET', key('owners'), worker)
if owner and ARGV[9] ~= '' and owner ~= ARGV[9] then return {'none'} end -- another home has taken its name (F09)
local gates, closed = redis.call('ZRANGE', key('gates'), 0, -1), {}
for _, gate in ipairs(gates) do closed[gate] = is_closed(gate) end
if closed['queue'] then return {'none'} end
local store_id = redis.call('HGET', key('meta'), 'store_id')
if not store_id then return {'emptied'} end

local free = {cpus = offer.cpus, memory_mib = offer.memory_mib, disk_mib = offer.disk_mib, slots = offer.slots}
local function take(need)
  free.cpus = free.cpus - need.cpus
  free.memory_mib = free.memory_mib - need.memory_mib
  free.disk_mib = free.disk_mib - need.disk_mib
  free.slots = free.slots - (need.slots or 1)
end
local leases, leased = redis.call('HGETALL', key('leases:' .. worker)), {}
for index = 1, #leases, 2 do
  leased[leases[index]] = true
  take(cjson.decode(leases[index + 1]))
end
for _, need in ipairs(lingering) do
  -- A sandbox whose attempt still has its lease is in the sum already.
  local counted = need.job and leased[need.job] and get(need.job, 'token')[1] == need.token
  if not counted then take(need) end
end
if free.slots < 1 then return {'none'} end

local tags = {}
for _, tag in ipairs(offer.tags) do tags[tag] = true end
local function has_tags(need)
  for _, tag in ipairs(need.tags) do
    if not tags[tag] then return false end
  end
  return true
end
local function granted(need)
  local part = {cpus = need.cpus, memory_mib = need.memory_mib, disk_mib = need.disk_mib}
  if need.cpus_wish then part.cpus = math.min(part.cpus, offer.cpus) end
  if need.memory_wish then part.memory_mib = math.min(part.memory_mib, offer.memory_mib) end
  if need.disk_wish then part.disk_mib = math.min(part.disk_mib, offer.disk_mib) end
  return part
end
local function fits(part, room)
  return part.cpus <= room.cpus and part.memory_mib <= room.memory_mib and part.disk_mib <= room.disk_mib
end

local function passes(class)
  if #gates == 0 then return true end
  for gate in string.gmatch(class, '|(%w+)') do
    if closed[gate] then return false end
  end
  return true
end

-- The first in line of all that fits what is left, and of all that fits this host but not what is left.
local classes, empty = redis.call('HGETALL', key('classes')), {}
local function search()
  local best, blocked
  for index = 1, #classes, 2 do
    local class = classes[index]
    local version = tonumber(string.match(class, '^(%d+);'))
    if version and version <= tonumber(ARGV[6]) then
      local need = cjson.decode(classes[index + 1])
      local part = granted(need)
      if has_tags(need) and fits(part, offer) and passes(class) then
        local head = redis.call('ZRANGE', key('line:' .. class), 0, 0, 'WITHSCORES')
        local found = {id = head[1], score = tonumber(head[2]), class = class, part = part}
        if not head[1] then
          empty[#empty + 1] = class
        elseif fits(part, free) then
          if not best or found.score < best.score then best = found end
        elseif not blocked or found.score < blocked.score then
          blocked = found
        end
      end
    end
  end
  return best, blocked
end

-- A line that holds what is not queued (I1) must not stop the others: such an entry is dropped.
local function stale(found)
  if not found or get(found.id, 'state')[1] == 'queued' then return false end
  redis.call('ZREM', key('line:' .. found.class), found.id)
  return true
end

-- A job that has waited too long for a host of its size gets one: that host claims nothing that stands behind it (F45).
-- The host says so anew with each claim; when it stops, another may.
local function reserved(id)
  local job, now = get(id, 'queued_at', 'reserved_by', 'reserved_at'), now_ms()
  if now - (tonumber(text(job[1])) or now) < tonumber(ARGV[8]) then return false end
  if job[2] and job[2] ~= worker and now - (tonumber(text(job[3])) or 0) < 30000 then return false end
  redis.call('HSET', key('job:' .. id), 'reserved_by', worker, 'reserved_at', now)
  return true
end

local best, blocked
repeat
  best, blocked = search()
until not stale(best) and not stale(blocked)
local function forget_empty()
  for _, class in ipairs(empty) do redis.call('HDEL', key('classes'), class) end
end
if not best or (blocked and not (best.score < blocked.score) and reserved(blocked.id)) then
  if not best and blocked then reserved(blocked.id) end
  forget_empty()
  return {'none'}
end

local id = best.id
check_writable(id, best.class)
must_be('hash', key('leases:' .. worker), key('nonce:' .. worker))
must_be('string', key('token'))
-- A held route lets one job through when its time is over: the probe. The next goes later.
local probe
for gate in string.gmatch(best.class, '|(%w+)') do
  local till = redis.call('HGET', key('gate:' .. gate), 'until')
  if till and till ~= '' and redis.call('HGET', key('gate:' .. gate), 'kind') == 'route' then probe = gate end
end
forget_empty()
-- A store that came back from an old backup must not give a number again (I2): a number is never below the time in ms,
-- nor below one that this worker has seen.
local seen_id, seen_number = string.match(ARGV[7], '^(.+):(%d+)$')
local floor = math.max(now_ms(), seen_id == store_id and tonumber(seen_number) or 0)
if floor > (tonumber(text(redis.call('GET', key('token')))) or 0) then
  redis.call('SET', key('token'), string.format('%.0f', floor))
end
local token = store_id .. ':' .. string.format('%.0f', redis.call('INCR', key('token')))
local attempt = string.format('%.0f', redis.call('HINCRBY', key('job:' .. id), 'attempt', 1))
redis.call('ZREM', key('line:' .. best.class), id)
if probe then
  redis.call('HSET', key('gate:' .. probe), 'until', string.format('%.0f', now_ms() + tonumber(ARGV[10])))
end
local class = string.match(best.class, '^[^|]*') .. text(get(id, 'gates')[1]) -- a person may have taken it past them
redis.call('HSET', key('job:' .. id), 'state', 'running', 'worker', worker, 'token', token, 'started_at', now_ms(),
  'step', '', 'message', '', 'class', class, 'probe', probe and token or '')
redis.call('HDEL', key('job:' .. id), 'reserved_by', 'reserved_at')
redis.call('HSET', key('leases:' .. worker), id, cjson.encode(best.part))
redis.call('HSET', key('beats'), id, token .. '|0|' .. ARGV[5])
redis.call('HSET', key('nonce:' .. worker), 'nonce', nonce, 'id', id, 'token', token)
event(id, 'claim', attempt, worker)
return claimed(id, token, attempt, probe and 'probe' or '')
