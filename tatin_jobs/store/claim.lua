-- The best first job that fits what is left of this worker's host, under a new token.
-- ARGV: worker, nonce, offer JSON, lingering needs JSON, lease seconds, store id.
-- Capacity in use is worked out here from the leases and the lingering sandboxes (I4): there is no counter beside it.
local worker, nonce, offer, lingering = ARGV[1], ARGV[2], cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local last = redis.call('HMGET', key('nonce:' .. worker), 'nonce', 'id', 'token')
if last[1] == nonce then
  local held = get(last[2], 'state', 'token', 'attempt')
  if held[1] == 'running' and held[2] == last[3] then return {'claimed', last[2], held[2], held[3]} end
  return {'none'}
end
if redis.call('SISMEMBER', key('draining'), worker) == 1 then return {'none'} end

local free = {cpus = offer.cpus, memory_mib = offer.memory_mib, disk_mib = offer.disk_mib, slots = offer.slots}
local function take(need)
  free.cpus = free.cpus - need.cpus
  free.memory_mib = free.memory_mib - need.memory_mib
  free.disk_mib = free.disk_mib - need.disk_mib
  free.slots = free.slots - 1
end
local leases = redis.call('HGETALL', key('leases:' .. worker))
for index = 2, #leases, 2 do take(cjson.decode(leases[index])) end
for index = 1, #lingering do take(lingering[index]) end
if free.slots < 1 then return {'none'} end

local tags = {}
for index = 1, #offer.tags do tags[offer.tags[index]] = true end
local function granted(need)
  local part = {cpus = need.cpus, memory_mib = need.memory_mib, disk_mib = need.disk_mib}
  if need.cpus_wish then part.cpus = math.min(part.cpus, offer.cpus) end
  if need.memory_wish then part.memory_mib = math.min(part.memory_mib, offer.memory_mib) end
  if need.disk_wish then part.disk_mib = math.min(part.disk_mib, offer.disk_mib) end
  return part
end
local function fits(need, part)
  for index = 1, #need.tags do
    if not tags[need.tags[index]] then return false end
  end
  return part.cpus <= free.cpus and part.memory_mib <= free.memory_mib and part.disk_mib <= free.disk_mib
end

-- Reservation for a big job that waits too long (F45) goes here: a head that fits the host but not what is left of
-- it, and has waited, would end the search with {'none'}.
local best, best_score, best_class, best_part
local empty = {}
local classes = redis.call('HGETALL', key('classes'))
for index = 1, #classes, 2 do
  local class = classes[index]
  local need = cjson.decode(classes[index + 1])
  local part = granted(need)
  if fits(need, part) then
    local head = redis.call('ZRANGE', key('line:' .. class), 0, 0, 'WITHSCORES')
    if not head[1] then
      empty[#empty + 1] = class
    elseif not best_score or tonumber(head[2]) < best_score then
      best, best_score, best_class, best_part = head[1], tonumber(head[2]), class, part
    end
  end
end
must_be('hash', key('classes'))
for _, class in ipairs(empty) do redis.call('HDEL', key('classes'), class) end
if not best then return {'none'} end

check_writable(best, best_class)
must_be('hash', key('leases:' .. worker), key('nonce:' .. worker))
local token = ARGV[6] .. ':' .. redis.call('INCR', key('token'))
local attempt = redis.call('HINCRBY', key('job:' .. best), 'attempt', 1)
redis.call('ZREM', key('line:' .. best_class), best)
redis.call('HSET', key('job:' .. best), 'state', 'running', 'worker', worker, 'token', token, 'started_at', now_ms(),
  'step', '', 'message', '')
redis.call('HSET', key('leases:' .. worker), best, cjson.encode(best_part))
redis.call('HSET', key('beats'), best, token .. '|0|' .. ARGV[5])
redis.call('HSET', key('nonce:' .. worker), 'nonce', nonce, 'id', best, 'token', token)
event(best, 'claim', attempt, worker)
return {'claimed', best, token, tostring(attempt)}
