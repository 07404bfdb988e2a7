-- Removes the entries of an index whose record has expired.
--
-- KEYS: the index, then the record of each entry
-- ARGV: the members of the entries
for i = 1, #ARGV do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return 0
