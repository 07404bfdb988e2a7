-- One batch read a request, of customers drawn at random.
-- wrk ... -s batch.lua URL -- PATH PREFIX CUSTOMERS IDS
dofile("tests/bench/load/drawn.lua")

function init(args)
  math.randomseed(seed)
  local path, prefix, customers, ids = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  requests = {}
  for i = 1, 64 do
    local quoted = {}
    for j = 1, ids do
      quoted[j] = '"' .. prefix .. string.format("%07d", math.random(0, customers - 1)) .. '"'
    end
    requests[i] = wrk.format("POST", path,
      { ["Content-Type"] = "application/json", ["Accept"] = "application/x-ndjson" },
      '{"ids":[' .. table.concat(quoted, ",") .. "]}")
  end
end
