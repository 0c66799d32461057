-- Makes and drops functions for so many seconds: the source of each is compiled, its loop becomes machine code, its
-- result is held against that of the interpreter.
local seconds = tonumber(arg[1])

local function interpreted(n, times)
	local s = 0
	for i = 1, times do s = (s * n + i % (n % 13 + 2)) % 1000003 end
	return s
end
jit.off(interpreted)

local source = [[
local s = 0
for i = 1, %d do s = (s * %d + i %% %d) %% 1000003 end
return s]]

local made, begin = 0, os.time()
repeat
	made = made + 1
	local times = 100 + made % 50
	local f = assert(loadstring(source:format(times, made, made % 13 + 2)))
	local got, want = f(), interpreted(made, times)
	if got ~= want then
		print(("GUISE-JIT FAIL function %d returned %d, not %d"):format(made, got, want))
		os.exit(1)
	end
until os.time() - begin >= seconds
print(("GUISE-JIT ok %d functions"):format(made))
