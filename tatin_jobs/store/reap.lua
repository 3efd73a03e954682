-- A reaper takes the job of a dead worker back. ARGV: id, the beat that it saw unchanged for a whole lease by its own
-- monotonic clock, deaths allowed.
local id = ARGV[1]
if redis.call('HGET', key('beats'), id) ~= ARGV[2] then return {'refused', 'alive'} end
local job = get(id, 'state', 'worker', 'class', 'attempt', 'cancel', 'need', 'score', 'deaths',
  'overdue')
if job[1] ~= 'running' then -- a left-over beat of a job that is elsewhere by now
  redis.call('HDEL', key('beats'), id)
  return {'refused', 'moved'}
end
check_writable(id, job[3])
must_be('hash', key('leases:' .. job[2]))
local deaths = redis.call('HINCRBY', key('job:' .. id), 'deaths', 1)
unlease(id, job[2])
local state = 'finished'
if job[5] == '1' then
  finish(id, 'cancelled', '', 'Cancelled; its worker died.', '')
elseif job[9] == '1' then
  finish_overdue(id)
elseif deaths >= tonumber(ARGV[3]) then
  finish(id, 'lost', 'worker', 'Lost: ' .. deaths .. ' workers died while they ran it.', '')
else
  local message = 'Attempt ' .. job[4] .. ' ended with its worker; queued again.'
  redis.call('HSET', key('job:' .. id), 'message', message, 'step', '')
  into_line(id, job[3], job[6], job[7])
  state = 'queued'
end
event(id, 'reap', job[4], state)
return {'ok', state}
