-- ARGV: id, token, step.
local job = get(ARGV[1], 'state', 'token', 'attempt')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
must_be('list', key('events:' .. ARGV[1]))
must_be('stream', key('changes'))
redis.call('HSET', key('job:' .. ARGV[1]), 'step', ARGV[3])
event(ARGV[1], 'step', job[3], ARGV[3])
return {'ok'}
