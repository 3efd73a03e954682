-- What an attempt learned of its model route. ARGV: id, token, gate, name, 'worked' or 'failed', message, failures in a
-- row that hold it, ms between two probes. Answers 'open' or 'held', and how often this job failed while it was held.
local id, token, gate, verdict = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local job = get(id, 'state', 'token', 'route_told', 'route_answer', 'route_fails')
if job[3] == token .. verdict then return {'ok', job[4], text(job[5])} end
if not job[1] then return {'refused', 'unknown'} end
if job[1] ~= 'running' or job[2] ~= token then return {'refused', 'lost'} end
must_be('hash', key('gate:' .. gate))
must_be('zset', key('gates'))
must_be('stream', key('changes'), key('wake'))
local name = key('gate:' .. gate)
local answer, fails = 'open', text(job[5])
if verdict == 'worked' then
  local was_held = redis.call('EXISTS', name) == 1
  redis.call('DEL', name)
  redis.call('ZREM', key('gates'), gate)
  if was_held then gates_changed() end
else
  local failures = redis.call('HINCRBY', name, 'failures', 1)
  redis.call('ZADD', key('gates'), 0, gate)
  redis.call('HSET', name, 'kind', 'route', 'name', ARGV[4], 'message', ARGV[6])
  if failures >= tonumber(ARGV[7]) then
    answer = 'held'
    fails = string.format('%.0f', redis.call('HINCRBY', key('job:' .. id), 'route_fails', 1))
    redis.call('HSET', name, 'until', string.format('%.0f', now_ms() + tonumber(ARGV[8])))
    gates_changed()
  end
  redis.call('PEXPIRE', name, 86400000) -- a route that nobody has tried for a day is tried again
end
redis.call('HSET', key('job:' .. id), 'route_told', token .. verdict, 'route_answer', answer)
return {'ok', answer, fails}
