-- One GET a request, for a customer drawn at random.
-- wrk ... -s get.lua URL -- PREFIX SUFFIX CUSTOMERS
dofile("tests/bench/load/drawn.lua")

function init(args)
  math.randomseed(seed)
  local prefix, suffix, customers = args[1], args[2], tonumber(args[3])
  -- Made before the clock starts, as wrk shares the machine with the server.
  requests = {}
  for i = 1, 20000 do
    requests[i] = wrk.format(nil, prefix .. string.format("%07d", math.random(0, customers - 1)) .. suffix)
  end
end
