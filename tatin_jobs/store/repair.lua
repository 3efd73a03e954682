-- Each record in exactly one place (I1), the one that its state says. ARGV: 'check' or 'repair', then ids.
-- Answers the ids that were in no place, in a wrong one, or in two; 'repair' has put them right.
must_be('hash', key('beats'), key('classes'))
must_be('zset', key('held'), key('finished'))
must_be('stream', key('changes'), key('wake'))
local workers = redis.call('HKEYS', key('workers'))

local function leased_by_others(id, holder)
  local found = {}
  for _, worker in ipairs(workers) do
    if worker ~= holder and redis.call('HEXISTS', key('leases:' .. worker), id) == 1 then found[#found + 1] = worker end
  end
  return found
end

local wrong = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local job = get(id, 'state', 'class', 'worker', 'token', 'need', 'score', 'held_until', 'finished_at', 'attempt')
  local state, class, worker = text(job[1]), text(job[2]), text(job[3])
  must_be('zset', key('line:' .. class))
  must_be('hash', key('leases:' .. worker))
  must_be('list', key('events:' .. id))
  local part = redis.call('HGET', key('leases:' .. worker), id)
  local beat = redis.call('HGET', key('beats'), id)
  local others = leased_by_others(id, worker)
  local right = (redis.call('ZSCORE', key('line:' .. class), id) and true or false) == (state == 'queued')
    and (redis.call('ZSCORE', key('held'), id) and true or false) == (state == 'held')
    and (redis.call('ZSCORE', key('finished'), id) and true or false) == (state == 'finished')
    and (part and true or false) == (state == 'running')
    and (beat and true or false) == (state == 'running')
    and #others == 0
  if not right then
    wrong[#wrong + 1] = id
    if ARGV[1] == 'repair' then
      out_of_waiting(id, class)
      redis.call('ZREM', key('finished'), id)
      unlease(id, worker)
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
