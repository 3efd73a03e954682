-- One beat for all that a worker holds. ARGV: lease seconds, then id, token, id, token ... Answers one word each:
-- held, cancel (wanted), overdue (its deadline has come), over (this attempt's own end is recorded), unknown (there is
-- no such job: the store was emptied), lost.
must_be('hash', key('beats'))
local answers = {}
for index = 2, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  local job = get(id, 'state', 'token', 'cancel', 'ended', 'returned', 'overdue')
  if job[4] == token or job[5] == token then
    answers[#answers + 1] = 'over'
  elseif not job[1] then
    answers[#answers + 1] = 'unknown'
  elseif job[1] ~= 'running' or job[2] ~= token then
    answers[#answers + 1] = 'lost'
  else
    local count = string.match(text(redis.call('HGET', key('beats'), id)), '|(%d+)|') or '0'
    redis.call('HSET', key('beats'), id, token .. '|' .. string.format('%.0f', count + 1) .. '|' .. ARGV[1])
    answers[#answers + 1] = (job[3] == '1') and 'cancel' or (job[6] == '1') and 'overdue' or 'held'
  end
end
return answers
