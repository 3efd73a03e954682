-- Held jobs whose time has come go into their lines. ARGV: how many at most. Answers how many went.
local due = redis.call('ZRANGEBYSCORE', key('held'), '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
local jobs = {}
for _, id in ipairs(due) do
  local job = get(id, 'class', 'need', 'score', 'attempt', 'state')
  if job[5] == 'held' then
    check_writable(id, job[1])
    jobs[#jobs + 1] = {id, job}
  end
end
for _, pair in ipairs(jobs) do
  local id, job = pair[1], pair[2]
  redis.call('ZREM', key('held'), id)
  into_line(id, job[1], job[2], job[3])
  event(id, 'release', job[4], 'due')
end
return #jobs
