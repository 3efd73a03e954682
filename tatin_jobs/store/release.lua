-- A person's release. ARGV: id, nonce of the request. What a person holds goes where it belongs without that hold; what
-- waits for a time or for other jobs goes into its line all the same; what a closed gate keeps there passes it.
local id = ARGV[1]
local job = get(id, 'state', 'class', 'attempt', 'asked', 'need', 'score', 'held_for', 'due')
if not job[1] then return {'refused', 'unknown'} end
if job[4] == ARGV[2] then return {'ok'} end
local class, ungated = text(job[2]), string.match(text(job[2]), '^[^|]*')
local gated = false
for gate in string.gmatch(class, '|(%w+)') do gated = gated or is_closed(gate) end
if job[1] ~= 'held' and not (job[1] == 'queued' and gated) then return {'refused', job[1]} end
check_writable(id, class)
must_be('zset', key('line:' .. ungated))
out_of_waiting(id, class)
redis.call('HSET', key('job:' .. id), 'message', '', 'asked', ARGV[2])
if job[1] == 'queued' then
  redis.call('HSET', key('job:' .. id), 'class', ungated) -- the claim gives it its gates back
  into_line(id, ungated, job[5], job[6])
elseif job[7] == 'person' then
  into_place(id, class, job[5], job[6], job[8])
else
  redis.call('DEL', key('needs:' .. id))
  redis.call('HSET', key('job:' .. id), 'due', '')
  into_line(id, class, job[5], job[6])
end
event(id, 'release', job[3], '')
return {'ok'}
