-- Finds the members of values in parts of an index.
--
-- KEYS: the parts of the index
-- ARGV: the maximum number of members for each value and part, then the values in the
--   form in which their members begin
--
-- Returns pairs of the position of a value, from 0, and a member.
local limit, from, to, found = ARGV[1], {}, {}, {}
for v = 2, #ARGV do
  -- A value ends in 00 01; all of its members begin with it.
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
