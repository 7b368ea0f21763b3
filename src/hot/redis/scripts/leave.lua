-- Says of an entry that a delta was left out. KEYS: the entry. ARGV: lane, seq.
-- A delta that the entry holds, or that its base covers, is not left out.
local key, lane, seq = KEYS[1], ARGV[1], tonumber(ARGV[2])
local has = redis.call('HMGET', key, 'p:' .. lane .. ':' .. ARGV[2], 's:' .. lane, 'b:' .. lane)
if has[1] or (tonumber(has[2] or '') or -1) >= seq then return 0 end
if has[3] and (tonumber(string.match(has[3], '@(%d+)$')) or -1) >= seq then return 0 end
redis.call('HSET', key, 's:' .. lane, ARGV[2])
return 1
