-- Ends a load, if its token is still in the entry: sets the bases that are higher, what to wait for, and full.
-- KEYS: the entry. ARGV: token, time to live in milliseconds, the number of bases, lane, total and seq of each, then lane
-- and end of each lane to wait for. Answers 1 when the load counted.
local key = KEYS[1]
local token = redis.call('HGET', key, 't')
local mine, life = string.match(token or '', '^(%d+):(.*)$')
if mine ~= ARGV[1] then return 0 end
redis.call('HDEL', key, 't')
local bases, set, at = {}, {'full', life}, 4
for _ = 1, tonumber(ARGV[3]) do
  bases[ARGV[at]] = {ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 2]}
  at = at + 3
end
local fields, drop = redis.call('HGETALL', key), {}
for i = 1, #fields, 2 do
  local lane = string.match(fields[i], '^b:(.*)$')
  local base = lane and bases[lane]
  if base and (tonumber(string.match(fields[i + 1], '@(%d+)$')) or -1) >= base[2] then bases[lane] = nil end
end
for i = 1, #fields, 2 do
  local kind, lane, seq = string.match(fields[i], '^(%a):([^:]*):?(%d*)$')
  local base = lane and bases[lane]
  if kind == 'w'
    or base and kind == 'p' and tonumber(seq) <= base[2]
    or base and kind == 's' and tonumber(fields[i + 1]) <= base[2]
  then
    drop[#drop + 1] = fields[i]
  end
end
for lane, base in pairs(bases) do
  set[#set + 1] = 'b:' .. lane
  set[#set + 1] = base[1] .. '@' .. base[3]
end
for from = 1, #drop, 1000 do
  redis.call('HDEL', key, unpack(drop, from, math.min(from + 999, #drop)))
end
while ARGV[at] do
  set[#set + 1] = 'w:' .. ARGV[at]
  set[#set + 1] = ARGV[at + 1]
  at = at + 2
end
for from = 1, #set, 1000 do
  redis.call('HSET', key, unpack(set, from, math.min(from + 999, #set)))
end
redis.call('PEXPIRE', key, ARGV[2])
return 1
