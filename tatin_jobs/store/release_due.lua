-- Held jobs whose time has come go into their lines, and accounts whose limit is over are open again. ARGV: how many
-- jobs at most. Answers how many went.
local due = redis.call('ZRANGEBYSCORE', key('held'), '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
local jobs = {}
for _, id in ipairs(due) do
  local job = get(id, 'class', 'need', 'score', 'attempt', 'state')
  jobs[id] = job
  if job[5] == 'held' then check_writable(id, job[1]) end
end
local over = {}
for _, gate in ipairs(redis.call('ZRANGE', key('gates'), 0, -1)) do
  local found = redis.call('HMGET', key('gate:' .. gate), 'kind', 'until')
  if not found[1] or (found[1] == 'account' and not is_closed(gate)) then over[#over + 1] = gate end
end
if #over > 0 then must_be('stream', key('changes'), key('wake')) end
for _, gate in ipairs(over) do
  redis.call('ZREM', key('gates'), gate)
  redis.call('DEL', key('gate:' .. gate))
  gates_changed()
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
