-- Each record in exactly one place (I1), the one that its state says. ARGV: 'check' or 'repair', then ids.
-- Answers the ids that were in no place, in a wrong one, or in two; 'repair' has put them right.
must_be('hash', key('beats'), key('classes'))
must_be('zset', key('held'), key('finished'), key('deadlines'), key('settle'))
must_be('stream', key('changes'), key('wake'))
local workers = redis.call('HKEYS', key('workers'))

local function leased_by_others(id, holder)
  local found = {}
  for _, worker in ipairs(workers) do
    if worker ~= holder and redis.call('HEXISTS', key('leases:' .. worker), id) == 1 then found[#found + 1] = worker end
  end
  return found
end

-- The indexes beside the places: a deadline that is to come, and the jobs that it waits for.
local function indexed(id, state, deadline, overdue, held_for)
  local waits = redis.call('ZSCORE', key('deadlines'), id) and true or false
  if waits ~= (state ~= 'finished' and deadline ~= '' and overdue ~= '1') then return false end
  for _, needed in ipairs(redis.call('ZRANGE', key('needs:' .. id), 0, -1)) do
    if not redis.call('ZSCORE', key('needed:' .. needed), id) then return false end
  end
  return held_for ~= 'needs' or redis.call('ZCARD', key('needs:' .. id)) > 0
end

local function put_in_indexes(id, state, deadline, overdue, held_for, needs)
  redis.call('ZREM', key('deadlines'), id)
  if state ~= 'finished' and deadline ~= '' and overdue ~= '1' then redis.call('ZADD', key('deadlines'), deadline, id) end
  redis.call('DEL', key('needs:' .. id))
  if held_for ~= 'needs' then return end
  for needed in string.gmatch(needs, '%S+') do
    redis.call('ZADD', key('needs:' .. id), 0, needed)
    redis.call('ZADD', key('needed:' .. needed), 0, id)
    local found = get(needed, 'state')[1]
    if found == 'finished' or not found then redis.call('ZADD', key('settle'), now_ms(), needed) end
  end
end

local wrong = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local job = get(id, 'state', 'class', 'worker', 'token', 'need', 'score', 'held_until', 'finished_at', 'attempt',
    'deadline', 'overdue', 'held_for', 'needs')
  local state, class, worker = text(job[1]), text(job[2]), text(job[3])
  must_be('zset', key('line:' .. class))
  must_be('hash', key('leases:' .. worker))
  must_be('list', key('events:' .. id))
  must_be('zset', key('needs:' .. id))
  for needed in string.gmatch(text(job[13]), '%S+') do must_be('zset', key('needed:' .. needed)) end
  local part = redis.call('HGET', key('leases:' .. worker), id)
  local beat = redis.call('HGET', key('beats'), id)
  local others = leased_by_others(id, worker)
  local right = (redis.call('ZSCORE', key('line:' .. class), id) and true or false) == (state == 'queued')
    and (redis.call('ZSCORE', key('held'), id) and true or false) == (state == 'held')
    and (redis.call('ZSCORE', key('finished'), id) and true or false) == (state == 'finished')
    and (part and true or false) == (state == 'running')
    and (beat and true or false) == (state == 'running')
    and #others == 0
    and (not job[1] or indexed(id, state, text(job[10]), text(job[11]), text(job[12])))
  if not right then
    wrong[#wrong + 1] = id
    if ARGV[1] == 'repair' then
      out_of_waiting(id, class)
      redis.call('ZREM', key('finished'), id)
      unlease(id, worker)
      if job[1] then put_in_indexes(id, state, text(job[10]), text(job[11]), text(job[12]), text(job[13])) end
      for _, other in ipairs(others) do redis.call('HDEL', key('leases:' .. other), id) end
      if state == 'queued' then
        into_line(id, class, job[5], job[6])
      elseif state == 'held' then
        redis.call('ZADD', key('held'), text(job[7]) ~= '' and job[7] or '+inf', id)
      elseif state == 'finished' then
        redis.call('ZADD', key('finished'), text(job[8]) ~= '' and job[8] or now_ms(), id)
      elseif state == 'running' then -- its holder goes on, or a reaper sees that nobody beats
        redis.call('HSET', key('leases:' .. worker), id, part or job[5])
        redis.call('HSET', key('beats'), id, beat or (text(job[4]) .. '|0|60'))
      end
      if job[1] then event(id, 'repair', job[9], state) end
    end
  end
end
return wrong
