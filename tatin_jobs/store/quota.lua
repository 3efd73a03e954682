-- A holder met the limit of its job's account: no job of that account is claimed for a while. ARGV: id, token, gate,
-- name, ms, message. The later of two ends counts.
local id, token, gate = ARGV[1], ARGV[2], ARGV[3]
local job = get(id, 'state', 'token', 'quota_told')
if job[3] == token then return {'ok'} end
if not job[1] then return {'refused', 'unknown'} end
if job[1] ~= 'running' or job[2] ~= token then return {'refused', 'lost'} end
must_be('hash', key('gate:' .. gate))
must_be('zset', key('gates'))
must_be('stream', key('changes'), key('wake'))
local now = now_ms()
local before = tonumber(text(redis.call('HGET', key('gate:' .. gate), 'until'))) or 0
local till = math.max(before, now + tonumber(ARGV[5]))
redis.call('HSET', key('job:' .. id), 'quota_told', token)
redis.call('ZADD', key('gates'), 0, gate)
redis.call('HSET', key('gate:' .. gate), 'kind', 'account', 'name', ARGV[4], 'until', string.format('%.0f', till),
  'message', ARGV[6])
gates_changed()
return {'ok'}
