-- ARGV: id, token, steps in their order.
local job = get(ARGV[1], 'state', 'token', 'attempt', 'step')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
must_be('list', key('events:' .. ARGV[1]))
must_be('stream', key('changes'))
redis.call('HSET', key('job:' .. ARGV[1]), 'step', tell_steps(ARGV[1], job[3], job[4], 3))
return {'ok'}
