-- Applies changes to records that still have the version they were read with.
--
-- KEYS: the records' keys, then the keys of the indexes that are edited
-- ARGV: time to live in ms ('0' for ever), number of changes, and for each:
--   the version, 8 bytes, '' for no record; the new value, its version first,
--   '' to delete; the number of index edits, and for each of these: the
--   position in KEYS of its index, negative to remove; the member
--
-- Returns the positions, from 0, of the changes that lost a race.
local call = redis.call
local ttl, changes = ARGV[1], tonumber(ARGV[2])
local lost, a = {}, 3
for i = 1, changes do
  local key, value, edits = KEYS[i], ARGV[a + 1], tonumber(ARGV[a + 2])
  if call('GETRANGE', key, 0, 7) == ARGV[a] then
    if value == '' then
      call('DEL', key)
    elseif ttl == '0' then
      call('SET', key, value)
    else
      call('SET', key, value, 'PX', ttl)
    end
    for e = 1, edits do
      local index = tonumber(ARGV[a + 1 + 2 * e])
      if index > 0 then
        call('ZADD', KEYS[index], 0, ARGV[a + 2 + 2 * e])
      else
        call('ZREM', KEYS[-index], ARGV[a + 2 + 2 * e])
      end
    end
  else
    lost[#lost + 1] = i - 1
  end
  a = a + 3 + 2 * edits
end
return lost
