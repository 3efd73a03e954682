-- A person's hold. ARGV: id, nonce of the request. What is held by a time, or for other jobs,
-- is then held by the person too.
local id = ARGV[1]
local job = get(id, 'state', 'class', 'attempt', 'asked')
if not job[1] then return {'refused', 'unknown'} end
if job[4] == ARGV[2] then return {'ok'} end
if job[1] ~= 'queued' and job[1] ~= 'held' then return {'refused', job[1]} end
check_writable(id, job[2])
redis.call('ZREM', key('line:' .. job[2]), id)
into_held(id, 'person')
redis.call('HSET', key('job:' .. id), 'message', 'Held by a person.', 'asked', ARGV[2])
event(id, 'hold', job[3], '')
return {'ok'}
