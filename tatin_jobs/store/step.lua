-- ARGV: id, token, steps in their order. The step that it is in already is no second event.
local job = get(ARGV[1], 'state', 'token', 'attempt', 'step')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
must_be('list', key('events:' .. ARGV[1]))
must_be('stream', key('changes'))
local step = job[4]
for number = 3, #ARGV do
  if ARGV[number] ~= step then
    step = ARGV[number]
    event(ARGV[1], 'step', job[3], step)
  end
end
redis.call('HSET', key('job:' .. ARGV[1]), 'step', step)
return {'ok'}
