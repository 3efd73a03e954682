-- One submit, whole or not at all. ARGV: batch id, batch JSON, content digest, created ms, then one JSON a job.
local batch, body, digest, created = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HGET', key('batch:' .. batch), 'digest')
if known then
  if known == digest then return {'same'} end
  return {'refused', batch}
end
check_shared()
local jobs, seen = {}, {}
for index = 5, #ARGV do
  local job = cjson.decode(ARGV[index])
  if seen[job.id] or redis.call('EXISTS', key('job:' .. job.id)) == 1 then return {'refused', job.id} end
  seen[job.id] = true
  check_own(job.id, job.class)
  jobs[#jobs + 1] = job
end
for _, job in ipairs(jobs) do
  for _, needed in ipairs(job.needs) do
    if not seen[needed] and redis.call('EXISTS', key('job:' .. needed)) == 0 then
      return {'refused', job.id, needed}
    end
    must_be('zset', key('needed:' .. needed))
  end
end
must_be('zset', key('ids'), key('all'), key('batches'))

-- The jobs that it waits for. One that did not succeed is left to settle.lua, which ends those that need it.
local function wait_for(job)
  for _, needed in ipairs(job.needs) do
    local found = get(needed, 'state', 'outcome')
    if found[2] ~= 'succeeded' then
      redis.call('ZADD', key('needs:' .. job.id), 0, needed)
      redis.call('ZADD', key('needed:' .. needed), 0, job.id)
      if found[1] == 'finished' then redis.call('ZADD', key('settle'), now_ms(), needed) end
    end
  end
end

for _, job in ipairs(jobs) do
  local score = job.rank + redis.call('INCR', key('seq'))
  local flat = {}
  for name, value in pairs(job.fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', key('job:' .. job.id), 'score', string.format('%.0f', score), 'class', job.class, 'due', job.due,
    unpack(flat))
  redis.call('ZADD', key('ids'), 0, job.id)
  redis.call('ZADD', key('all'), job.fields.created_at, job.id)
  if job.deadline ~= '' then redis.call('ZADD', key('deadlines'), job.deadline, job.id) end
  wait_for(job)
  if job.held then
    into_held(job.id, 'person')
  elseif #job.needs > 0 and redis.call('ZCARD', key('needs:' .. job.id)) > 0 then
    into_held(job.id, 'needs')
  elseif job.due ~= '' then
    into_held(job.id, 'time', job.due)
  else
    into_line(job.id, job.class, job.fields.need, string.format('%.0f', score))
  end
  event(job.id, 'submit', 0, batch)
end
redis.call('HSET', key('batch:' .. batch), 'digest', digest, 'body', body)
redis.call('ZADD', key('batches'), created, batch)
redis.call('ZADD', key('ids'), 0, batch)
return {'new'}
