-- A lane's publishes are complete from a seq on. What lies below it and was not published is lost: no entry is full any more.
-- KEYS: the lane's key, the marks. ARGV: the seq, another generation. Answers 1 when the generation was raised.
local through = tonumber(redis.call('GET', KEYS[1]) or '0')
if through >= tonumber(ARGV[1]) then return 0 end
redis.call('HDEL', KEYS[2], 'g')
redis.call('HSET', KEYS[2], 'g', ARGV[2])
return 1
