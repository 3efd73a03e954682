-- A person closes or opens a gate. ARGV: 'close' or 'open', gate, kind, name, message. Answers 1 when that changed it.
local name, gate = key('gate:' .. ARGV[2]), ARGV[2]
must_be('hash', name)
must_be('zset', key('gates'))
must_be('stream', key('changes'), key('wake'))
local closed = redis.call('HGET', name, 'until')
if ARGV[1] == 'open' then
  if redis.call('DEL', name) == 0 then return 0 end
  redis.call('ZREM', key('gates'), gate)
else
  if closed == 'inf' then return 0 end
  redis.call('ZADD', key('gates'), 0, gate)
  redis.call('HSET', name, 'kind', ARGV[3], 'name', ARGV[4], 'until', 'inf', 'message', ARGV[5])
end
gates_changed()
return 1
