-- Sets a lane's base in entries that exist, if it is higher, and drops the pending deltas that it covers.
-- KEYS: entries. ARGV: lane, seq, then for each entry its total and its time to live in milliseconds.
-- Answers for each entry: 0 when it is not there; 1 when it was written; when it was written and is full, its fields as they
-- were, by which the caller sees whether it had told the truth; and its base when that is as high already.
-- Totals are opaque here (a number of this language is exact to 2^53 only); seqs are compared as numbers.
local lane, seq = ARGV[1], tonumber(ARGV[2])
local base, left = 'b:' .. lane, 's:' .. lane
local delta = 'p:' .. lane .. ':'
local answers = {}
for at, key in ipairs(KEYS) do
  local fields = redis.pcall('HGETALL', key)
  local answer = 0
  if not fields.err and #fields > 0 then
    -- A write that memory's bound does not refuse comes first: then it refuses none of the others either.
    redis.call('PEXPIRE', key, ARGV[2 + 2 * at])
    local held, full, covered = -1, false, {}
    for i = 1, #fields, 2 do
      local field = fields[i]
      if field == base then
        held = tonumber(string.match(fields[i + 1], '@(%d+)$')) or -1
      elseif field == 'full' then
        full = true
      elseif string.sub(field, 1, #delta) == delta and tonumber(string.sub(field, #delta + 1)) <= seq then
        covered[#covered + 1] = field
      elseif field == left and tonumber(fields[i + 1]) <= seq then
        covered[#covered + 1] = field
      end
    end
    if held < seq then
      redis.call('HSET', key, base, ARGV[1 + 2 * at] .. '@' .. ARGV[2])
      answer = full and fields or 1
    else
      answer = redis.call('HGET', key, base)
    end
    for from = 1, #covered, 1000 do
      redis.call('HDEL', key, unpack(covered, from, math.min(from + 999, #covered)))
    end
  end
  answers[at] = answer
end
return answers
