-- Pieces of the live log. ARGV: id, token, then stream, data, stream, data ... The stream is bounded: about 2 MiB a job.
local job = get(ARGV[1], 'state', 'token', 'attempt')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
must_be('stream', key('log:' .. ARGV[1]))
for index = 3, #ARGV, 2 do
  redis.call('XADD', key('log:' .. ARGV[1]), 'MAXLEN', '128', '*', 'a', job[3], 's', ARGV[index], 'd', ARGV[index + 1])
end
return {'ok'}
