-- Jobs that need one that is over: when it succeeded, those that wait for nothing more go on; else they end. ARGV: how
-- many at most. Answers how many were looked at.
local limit = tonumber(ARGV[1])
must_be('zset', key('settle'))
local work = {}
for _, over in ipairs(redis.call('ZRANGE', key('settle'), 0, limit - 1)) do
  local ended = get(over, 'state', 'outcome', 'reason')
  for _, id in ipairs(redis.call('ZRANGE', key('needed:' .. over), 0, limit - 1)) do
    if #work < limit then
      local job = get(id, 'state', 'class', 'need', 'score', 'attempt', 'held_for', 'due')
      check_writable(id, text(job[2]))
      work[#work + 1] = {over = over, ended = ended, id = id, job = job}
    end
  end
  if redis.call('EXISTS', key('needed:' .. over)) == 0 then work[#work + 1] = {over = over} end
end

local function settle(one)
  local id = one.id
  local state = get(id, 'state')[1]
  local waits = redis.call('ZREM', key('needs:' .. id), one.over) == 1
  if not waits or state ~= 'held' then return end
  if one.ended[2] ~= 'succeeded' then
    local how = text(one.ended[2]) .. (text(one.ended[3]) ~= '' and ': ' .. one.ended[3] or '')
    out_of_waiting(id, one.job[2])
    finish(id, 'cancelled', 'needs', 'Not run: ' .. one.over .. ', which it needs, ended as ' .. how .. '.', '')
    event(id, 'settle', one.job[5], 'not run')
  elseif redis.call('ZCARD', key('needs:' .. id)) == 0 and one.job[6] == 'needs' then
    redis.call('ZREM', key('held'), id)
    redis.call('HSET', key('job:' .. id), 'message', '')
    event(id, 'settle', one.job[5], into_place(id, one.job[2], one.job[3], one.job[4], one.job[7]))
  end
end

for _, one in ipairs(work) do
  if one.id then
    redis.call('ZREM', key('needed:' .. one.over), one.id)
    settle(one)
  end
  if redis.call('EXISTS', key('needed:' .. one.over)) == 0 then redis.call('ZREM', key('settle'), one.over) end
end
return #work
