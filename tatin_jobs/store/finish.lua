-- The holder's end of a job. ARGV: id, token, outcome, reason, message, summary JSON. The same again is accepted.
local id, token = ARGV[1], ARGV[2]
local job = get(id, 'state', 'token', 'outcome', 'worker', 'class', 'attempt')
if job[1] == 'finished' and job[2] == token and job[3] == ARGV[3] then return {'ok'} end
if job[1] ~= 'running' or job[2] ~= token then return {'refused', 'lost'} end
check_writable(id, job[5])
must_be('hash', key('leases:' .. job[4]))
finish(id, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
unlease(id, job[4])
event(id, 'finish', job[6], ARGV[3] .. ' ' .. ARGV[4])
return {'ok'}
