-- Jobs whose deadline has come: what waits is over, what runs is marked, and its holder learns with a beat. ARGV: how
-- many at most. Answers how many.
local due = redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
local jobs = {}
for _, id in ipairs(due) do
  local job = get(id, 'state', 'class', 'attempt')
  jobs[id] = job
  check_writable(id, text(job[2]))
end
for _, id in ipairs(due) do
  local job = jobs[id]
  redis.call('ZREM', key('deadlines'), id)
  if job[1] == 'running' then
    redis.call('HSET', key('job:' .. id), 'overdue', '1')
    event(id, 'overdue', job[3], '')
  elseif job[1] == 'queued' or job[1] == 'held' then
    out_of_waiting(id, job[2])
    finish_overdue(id)
    event(id, 'overdue', job[3], '')
  end
end
return #due
