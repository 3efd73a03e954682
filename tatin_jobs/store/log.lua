-- Pieces of the live log. ARGV: id, token, nonce of the request, then stream, data, stream, data ... The stream is
-- bounded: 1,000 pieces of 4 KiB at most.
local job = get(ARGV[1], 'state', 'token', 'attempt', 'logged')
if job[1] ~= 'running' or job[2] ~= ARGV[2] then return {'refused', 'lost'} end
if job[4] == ARGV[3] then return {'ok'} end
must_be('stream', key('log:' .. ARGV[1]))
redis.call('HSET', key('job:' .. ARGV[1]), 'logged', ARGV[3])
for index = 4, #ARGV, 2 do
  redis.call('XADD', key('log:' .. ARGV[1]), 'MAXLEN', '1000', '*', 'a', job[3], 's', ARGV[index], 'd', ARGV[index + 1])
end
return {'ok'}
