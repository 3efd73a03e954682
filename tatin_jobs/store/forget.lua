-- Prune: remove the records of finished jobs. ARGV: ids. Answers how many went; one that is not finished stays.
must_be('zset', key('finished'), key('all'), key('ids'))
local gone = 0
for _, id in ipairs(ARGV) do
  local needed = redis.call('EXISTS', key('needed:' .. id)) == 1 -- those that need it are not settled yet
  if redis.call('HGET', key('job:' .. id), 'state') == 'finished' and not needed then
    redis.call('DEL', key('job:' .. id), key('events:' .. id), key('log:' .. id))
    redis.call('ZREM', key('finished'), id)
    redis.call('ZREM', key('all'), id)
    redis.call('ZREM', key('ids'), id)
    gone = gone + 1
  end
end
return gone
