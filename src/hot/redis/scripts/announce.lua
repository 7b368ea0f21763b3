-- Announces a series that is about to be loaded: from now on whoever adds deltas adds those of this series too.
-- KEYS: the marks. ARGV: the series' hash, most series, another generation, time to live in milliseconds.
-- Too many: all are forgotten, and with them every entry that counted on being announced.
local key = KEYS[1]
local announced = tonumber(redis.call('HGET', key, 'v') or '0')
if announced >= tonumber(ARGV[2]) then
  redis.call('DEL', key)
  announced = 0
end
redis.call('HSETNX', key, 'g', ARGV[3])
redis.call('HSET', key, 'v', announced + 1, announced + 1, ARGV[1])
redis.call('PEXPIRE', key, ARGV[4])
return 1
