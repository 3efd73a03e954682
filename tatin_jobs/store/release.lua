-- A person's release, whatever it is held for. ARGV: id, nonce of the request.
local id = ARGV[1]
local job = get(id, 'state', 'class', 'attempt', 'asked', 'need', 'score')
if not job[1] then return {'refused', 'unknown'} end
if job[4] == ARGV[2] then return {'ok'} end
if job[1] ~= 'held' then return {'refused', job[1]} end
check_writable(id, job[2])
redis.call('ZREM', key('held'), id)
redis.call('HSET', key('job:' .. id), 'message', '', 'asked', ARGV[2])
into_line(id, job[2], job[5], job[6])
event(id, 'release', job[3], '')
return {'ok'}
