-- Says that deltas of lanes may not have arrived: entries are stale until the lanes' publishes have passed them.
-- KEYS: the marks. ARGV: for each lane, its name and one past the seq.
local lost = {}
for lane, past in string.gmatch(redis.call('HGET', KEYS[1], 'l') or '', '([^=,]+)=(%d+)') do lost[lane] = past end
for at = 1, #ARGV, 2 do
  local past = lost[ARGV[at]]
  if not past or tonumber(past) < tonumber(ARGV[at + 1]) then lost[ARGV[at]] = ARGV[at + 1] end
end
local all = {}
for lane, past in pairs(lost) do all[#all + 1] = lane .. '=' .. past end
-- What memory's bound does not refuse comes first.
redis.call('HDEL', KEYS[1], 'l')
redis.call('HSET', KEYS[1], 'l', table.concat(all, ','))
return 1
