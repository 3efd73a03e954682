-- A worker takes its name. ARGV: worker, id of its home, ms of silence after which a name is free. Two homes under one
-- name would share its leases and its nonce (F09); a home's own lock keeps its second worker away.
local worker, home = ARGV[1], ARGV[2]
must_be('hash', key('owners'), key('workers'), key('seen'))
local owner = redis.call('HGET', key('owners'), worker)
if owner and owner ~= home and redis.call('HEXISTS', key('workers'), worker) == 1 then
  local seen = tonumber(text(redis.call('HGET', key('seen'), worker))) or 0
  if now_ms() - seen < tonumber(ARGV[3]) then return {'refused', redis.call('HGET', key('workers'), worker)} end
end
redis.call('HSET', key('owners'), worker, home)
return {'ok'}
