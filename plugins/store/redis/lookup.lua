-- KEYS are the parts of an index in some shards. ARGV[1] is how many members of
-- each value are wanted of each part, then come the values, as their members
-- begin. Returns the position of a value, from 0, and a member, in turns.
local limit, from, to, found = ARGV[1], {}, {}, {}
for v = 2, #ARGV do
  -- A value ends in 00 01, and all its members begin so.
  from[v] = '[' .. ARGV[v]
  to[v] = '(' .. string.sub(ARGV[v], 1, -2) .. '\2'
end
for k = 1, #KEYS do
  local part = KEYS[k]
  if redis.call('EXISTS', part) == 1 then
    for v = 2, #ARGV do
      local members = redis.call('ZRANGEBYLEX', part, from[v], to[v], 'LIMIT', 0, limit)
      for m = 1, #members do
        found[#found + 1] = v - 2
        found[#found + 1] = members[m]
      end
    end
  end
end
return found
