-- wrk -s serve.lua URL -- FILE SEED: at each request asks for one of the paths in FILE, at random.
local requests = {}

function init(args)
  for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
  math.randomseed(tonumber(args[2]))
end

function request() return requests[math.random(#requests)] end

function done(summary, latency)
  local e = summary.errors
  print(string.format("MEASURED %d %d %.0f %d %d %d", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.timeout + e.status))
end
