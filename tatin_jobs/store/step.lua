-- ARGV: id, token, step. The step that it is in already is no second event.
local job = get(ARGV[1], 'state', 'token', 'attempt', 'step')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
if job[4] == ARGV[3] then return {'ok'} end
must_be('list', key('events:' .. ARGV[1]))
must_be('stream', key('changes'))
redis.call('HSET', key('job:' .. ARGV[1]), 'step', ARGV[3])
event(ARGV[1], 'step', job[3], ARGV[3])
return {'ok'}
