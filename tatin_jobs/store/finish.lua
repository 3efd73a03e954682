-- The holder's end of a job. ARGV: id, token, outcome, reason, message, summary JSON, then the steps
-- that were not told yet. The same again is accepted.
-- A cancel that was accepted before holds, however the attempt ended (F41). Answers the outcome that counts.
local id, token = ARGV[1], ARGV[2]
local outcome, reason, message = ARGV[3], ARGV[4], ARGV[5]
local job = get(id, 'state', 'token', 'ended', 'outcome', 'worker', 'class', 'attempt', 'cancel', 'step')
if job[8] == '1' and outcome ~= 'cancelled' then
  message = 'Cancelled; its attempt had ended as ' .. outcome .. ' by then.'
  outcome, reason = 'cancelled', ''
end
if job[3] == token and job[4] == outcome then return {'ok', outcome} end
if not job[1] then return {'refused', 'unknown'} end
if job[1] ~= 'running' or job[2] ~= token then return {'refused', 'lost'} end
check_writable(id, job[6])
must_be('hash', key('leases:' .. job[5]))
redis.call('HSET', key('job:' .. id), 'ended', token)
tell_steps(id, job[7], job[9], 7)
finish(id, outcome, reason, message, ARGV[6])
unlease(id, job[5])
event(id, 'finish', job[7], reason == '' and outcome or outcome .. ' ' .. reason)
return {'ok', outcome}
