-- Notes that a lane's publishes are through up to a seq, and takes back what was said to be lost below it.
-- KEYS: the lane's key, the marks. ARGV: lane, one past the seq, time to live of both in milliseconds.
local at, through = tonumber(redis.call('GET', KEYS[1]) or '-1'), tonumber(ARGV[2])
-- A write that memory's bound does not refuse comes first: then it refuses none of the others either.
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if at < through then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local lost, left = redis.call('HGET', KEYS[2], 'l'), {}
if lost then
  for lane, past in string.gmatch(lost, '([^=,]+)=(%d+)') do
    if lane ~= ARGV[1] or tonumber(past) > through then left[#left + 1] = lane .. '=' .. past end
  end
  if #left == 0 then
    redis.call('HDEL', KEYS[2], 'l')
  else
    redis.call('HSET', KEYS[2], 'l', table.concat(left, ','))
  end
end
return 1
