-- Held jobs whose time has come go into their lines. ARGV: how many at most. Answers how many went.
local due = redis.call('ZRANGEBYSCORE', key('held'), '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
local jobs = {}
for _, id in ipairs(due) do
  local job = get(id, 'class', 'need', 'score', 'attempt', 'state')
  jobs[id] = job
  if job[5] == 'held' then check_writable(id, job[1]) end
end
local gone = 0
for _, id in ipairs(due) do
  local job = jobs[id]
  redis.call('ZREM', key('held'), id)
  if job[5] == 'held' then -- else a left-over of a record that is elsewhere by now
    into_line(id, job[1], job[2], job[3])
    event(id, 'release', job[4], 'due')
    gone = gone + 1
  end
end
return gone
