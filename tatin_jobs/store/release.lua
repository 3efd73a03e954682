-- A person's release, whatever it is held for. ARGV: id.
local id = ARGV[1]
local job = get(id, 'state', 'class', 'attempt', 'need', 'score')
if not job[1] then return {'refused', 'unknown'} end
if job[1] ~= 'held' then return {'refused', job[1]} end
check_writable(id, job[2])
redis.call('ZREM', key('held'), id)
redis.call('HSET', key('job:' .. id), 'message', '')
into_line(id, job[2], job[4], job[5])
event(id, 'release', job[3], '')
return {'ok'}
