-- Adds a delta to an entry that may hold as many as it may: past the bound it is left out, and the entry says so.
-- KEYS: the entry. ARGV: lane, seq, amount, the bound, and '1' when the delta was set just now, before this was asked.
-- Answers 1 when the delta was left out.
local key, lane, seq = KEYS[1], ARGV[1], tonumber(ARGV[2])
local mine, was_set = 'p:' .. lane .. ':' .. ARGV[2], ARGV[5] == '1'
local fields, bases = redis.call('HGETALL', key), {}
for i = 1, #fields, 2 do
  local of = string.match(fields[i], '^b:(.*)$')
  if of then bases[of] = tonumber(string.match(fields[i + 1], '@(%d+)$')) or -1 end
end
if seq <= (bases[lane] or -1) then
  redis.call('HDEL', key, mine)
  return 0
end
local others, held, left = 0, false, -1
for i = 1, #fields, 2 do
  local field = fields[i]
  if field == mine then
    held = true
  elseif field == 's:' .. lane then
    left = tonumber(fields[i + 1])
  else
    local of, at = string.match(field, '^p:(.*):(%d+)$')
    if of and tonumber(at) > (bases[of] or -1) then others = others + 1 end
  end
end
if held and not was_set then return 0 end
if others < tonumber(ARGV[4]) then
  if not held then redis.call('HSET', key, mine, ARGV[3]) end
  return 0
end
if held then redis.call('HDEL', key, mine) end
if left < seq then redis.call('HSET', key, 's:' .. lane, ARGV[2]) end
return 1
