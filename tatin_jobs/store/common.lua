-- Prepended to every script. KEYS[1] is the prefix; all keys are described in keys.py.
-- Rule of every script (I11): check everything, then write; Redis does not roll back. A refusal is {'refused', why}.
-- A request that is made again because its reply was lost gets the same answer: it is known by its token or nonce.
local P = KEYS[1]

local function key(name) return P .. name end

-- Milliseconds by the store's clock: for display and order only, never to decide that someone is dead.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(value) if value then return value else return '' end end

-- Raises before anything is written when a key holds another type than this script is going to write (F30).
local function must_be(kind, ...)
  for _, name in ipairs({...}) do
    local found = redis.call('TYPE', name)
    if type(found) == 'table' then found = found['ok'] end
    if found ~= 'none' and found ~= kind then
      error('key ' .. name .. ' holds a ' .. found .. ', not a ' .. kind)
    end
  end
end

local function check_shared()
  must_be('hash', key('beats'), key('classes'))
  must_be('zset', key('held'), key('finished'), key('deadlines'), key('settle'))
  must_be('stream', key('changes'), key('wake'))
end

local function check_own(id, class)
  must_be('hash', key('job:' .. id))
  must_be('zset', key('line:' .. class), key('needs:' .. id), key('needed:' .. id))
  must_be('list', key('events:' .. id))
end

local function check_writable(id, class)
  check_shared()
  check_own(id, class)
end

-- One event for each move, and a line in the stream that `wait` and `list --watch` follow.
local function event(id, move, attempt, detail)
  local line = cjson.encode({at = now_ms(), move = move, attempt = tonumber(attempt) or 0, detail = detail or ''})
  redis.call('RPUSH', key('events:' .. id), line)
  redis.call('LTRIM', key('events:' .. id), -200, -1)
  redis.call('XADD', key('changes'), 'MAXLEN', '~', '10000', '*', 'id', id, 'move', move)
end

-- The steps of an attempt, in ARGV from ``first`` on; the step that it is in already is no second event.
local function tell_steps(id, attempt, step, first)
  for number = first, #ARGV do
    if ARGV[number] ~= step then
      step = ARGV[number]
      event(id, 'step', attempt, step)
    end
  end
  return step
end

local function get(id, ...)
  return redis.call('HMGET', key('job:' .. id), ...)
end

-- Into its need class, at the place that its score gives; wakes the workers.
local function into_line(id, class, need, score)
  redis.call('HSET', key('classes'), class, need)
  redis.call('ZADD', key('line:' .. class), score, id)
  redis.call('HSET', key('job:' .. id), 'state', 'queued', 'held_until', '', 'held_for', '', 'queued_at', now_ms())
  redis.call('XADD', key('wake'), 'MAXLEN', '1', '*', 'id', id)
end

-- Held until a time, or (why is not 'time') until a person or the jobs that it needs let it go.
local function into_held(id, why, until_ms)
  if why == 'time' then
    redis.call('ZADD', key('held'), until_ms, id)
    redis.call('HSET', key('job:' .. id), 'state', 'held', 'held_for', why, 'held_until', until_ms, 'due', until_ms)
  else
    redis.call('ZADD', key('held'), '+inf', id)
    redis.call('HSET', key('job:' .. id), 'state', 'held', 'held_for', why, 'held_until', '')
  end
end

-- Where a waiting job belongs that no person holds: held for the jobs that it needs, held until its time, or in line.
local function into_place(id, class, need, score, due)
  if redis.call('ZCARD', key('needs:' .. id)) > 0 then
    into_held(id, 'needs')
    return 'held'
  end
  if text(due) ~= '' and tonumber(due) > now_ms() then
    into_held(id, 'time', due)
    return 'held'
  end
  into_line(id, class, need, score)
  return 'queued'
end

local function out_of_waiting(id, class)
  redis.call('ZREM', key('line:' .. class), id)
  redis.call('ZREM', key('held'), id)
end

local function unlease(id, worker)
  redis.call('HDEL', key('leases:' .. worker), id)
  redis.call('HDEL', key('beats'), id)
end

local function finish(id, outcome, reason, message, summary)
  local at = now_ms()
  redis.call('HSET', key('job:' .. id), 'state', 'finished', 'outcome', outcome, 'reason', reason, 'message', message,
    'summary', summary, 'finished_at', at, 'step', '', 'held_until', '', 'held_for', '')
  redis.call('ZADD', key('finished'), at, id)
  redis.call('PEXPIRE', key('log:' .. id), 86400000)
  redis.call('ZREM', key('deadlines'), id)
  redis.call('DEL', key('needs:' .. id))
  if redis.call('EXISTS', key('needed:' .. id)) == 1 then redis.call('ZADD', key('settle'), at, id) end
end

local function finish_overdue(id)
  finish(id, 'timed_out', 'deadline', 'Its deadline came before it was over.', '')
end

-- Whether a gate is closed now. A route that is held opens for one job when its time is over; see claim.lua.
local function is_closed(gate)
  local till = redis.call('HGET', key('gate:' .. gate), 'until')
  if not till or till == '' then return false end
  return till == 'inf' or tonumber(till) > now_ms()
end

-- A gate was opened or closed: whoever follows the changes looks again.
local function gates_changed()
  redis.call('XADD', key('changes'), 'MAXLEN', '~', '10000', '*', 'id', '*', 'move', 'gate')
  redis.call('XADD', key('wake'), 'MAXLEN', '1', '*', 'id', '*')
end
