-- Applies changes to the records that still have the version they were loaded with
-- (conditional write), together with their index edits. Redis runs a script alone, so
-- the comparison, the write and the edits of a change are atomic.
--
-- KEYS: the keys of the records, then the keys of the edited indexes
-- ARGV: time to live in ms ('0' for none), number of changes, and for each change:
--   the expected version in 8 bytes, '' for no record
--   the new value (8 bytes of version, then the data), '' to delete the record
--   the number of index edits, and for each edit:
--     the position in KEYS of the index, negative to remove the member
--     the member
--
-- For example, to create c-1 with the index entry email = a@example.com:
--
--   KEYS  profiles:p:{0}c-1  profiles:i:{0}email
--   ARGV  '0' 1  '' '<version><data>' 1  2 'a@example.com\0\1c-1'
--
-- Returns the positions, from 0, of the changes that conflicted: their record has
-- another version now.
local call = redis.call
local ttl, changes = ARGV[1], tonumber(ARGV[2])
local conflicts, a = {}, 3
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
    conflicts[#conflicts + 1] = i - 1
  end
  a = a + 3 + 2 * edits
end
return conflicts
