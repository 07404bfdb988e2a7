-- One GET a request, for a customer drawn at random.
-- wrk ... -s get.lua URL -- PREFIX SUFFIX CUSTOMERS
local count = 0

function setup(thread)
  count = count + 1
  thread:set("seed", count)
end

function init(args)
  math.randomseed(seed)
  local prefix, suffix, customers = args[1], args[2], tonumber(args[3])
  -- Made before the clock starts, as wrk shares the machine with the server.
  requests = {}
  for i = 1, 20000 do
    requests[i] = wrk.format(nil, prefix .. string.format("%07d", math.random(0, customers - 1)) .. suffix)
  end
  at = 0
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_us":%.1f,"p99_us":%.1f,"p999_us":%.1f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
