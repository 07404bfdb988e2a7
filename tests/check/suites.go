package main

// suite is a line of `make check`. To add one, add an item to suites, below.
type suite struct {
	name   string
	proves string // one line for the list
	run    string // shell command, run by bash -e in the root of the repository
	short  string // shorter command for CI, empty if run serves

	settings []setting
	needs    []string // keys of tools
	minutes  int      // bound for the whole suite
}

// setting is an environment variable of a command and its default values.
type setting struct {
	name, full, short string
}

// tools lists how to find what a suite needs besides Go, and the Debian package
// that contains it.
var tools = map[string]struct{ probe, deb string }{
	"java":     {"command -v java", "default-jre-headless"},
	"mvn":      {"command -v mvn", "maven"},
	"node":     {"command -v node", "nodejs"},
	"npm":      {"command -v npm", "npm"},
	"chromium": {"command -v chromium", "chromium"},
	"python3":  {"command -v python3", "python3"},
	"venv":     {"python3 -c 'import ensurepip, venv'", "python3-venv"},
}

const findSample = `[ -f "$DATA" ] || { echo "no file $DATA: set DATA to the CDNOW sample"; exit 77; }; `

var sample = []setting{{"DATA", "../shared/data/CDNOW_sample.txt", "../shared/data/CDNOW_sample.txt"}}

// suites are in the order in which CI runs them.
var suites = []suite{
	{name: "lint", proves: "formatting, static analysis, no dead code, no dropped error", run: "make -s lint", minutes: 10},
	{name: "test", proves: "unit tests, and every shipped config lints and passes its tests", run: "make -s test", minutes: 20},
	{name: "race", proves: "no data race in the unit tests of cmd and plugins", run: "go test -race -timeout 25m ./cmd/... ./plugins/...", minutes: 30},
	{name: "fuzz", proves: "every fuzz target, FUZZTIME inputs each", run: "tests/check/fuzz.sh", settings: []setting{{"FUZZTIME", "20000x", "5000x"}}, minutes: 40},
	{name: "oracle", proves: "features equal a naive computation over CASES random histories", run: "tests/check/oracle.sh", settings: []setting{{"CASES", "10000", "200"}}, minutes: 60},
	{name: "services", proves: "the store contract on a real Redis and Redis Cluster", run: "tests/services/check.sh", minutes: 12},
	{name: "faults", proves: "no lost or repeated event while workers, Redis and Kafka are killed", run: "go run ./tests/system faults -events 1000000 -outage 60s && go run ./tests/system faults -events 200000 -cluster", short: "go run ./tests/system faults -events 50000", needs: []string{"java", "mvn"}, minutes: 90},
	{name: "simulate", proves: "every trigger and segment of DAYS days of the shop, with kills", run: "go run ./tests/system simulate -days $DAYS", settings: []setting{{"DAYS", "90", "7"}}, needs: []string{"java", "mvn"}, minutes: 45},
	{name: "soak", proves: "no wrong answer and flat memory for FOR at 80% of the maximum load", run: "go run ./tests/system soak -for $FOR", settings: []setting{{"FOR", "30m", "20s"}}, needs: []string{"java", "mvn"}, minutes: 60},
	{name: "sdk", proves: "Segment's and RudderStack's SDKs deliver every event once", run: "tests/check/npm.sh tests/sdk && tests/sdk/run.sh && tests/sdk/profile.sh && tests/sdk/faults.py bin/connect-personalize", needs: []string{"node", "npm"}, minutes: 8},
	{name: "liquid", proves: "content blocks are Liquid: golden-liquid by group, and the cases of authors", run: "go test -count=1 -v -run 'TestGoldenLiquid|TestCases' ./plugins/engine/content", minutes: 3},
	{name: "dirty-day", proves: "each of 22 kinds of bad data is found, and no good event is lost", run: "go run ./tests/dirtyday", minutes: 8},
	{name: "schemathesis", proves: "the profile API answers as its OpenAPI description says", run: "tests/contract/run.sh fuzz", needs: []string{"python3", "venv"}, minutes: 8},
	{name: "client", proves: "a client generated from that description works", run: "tests/contract/run.sh client", needs: []string{"python3", "venv"}, minutes: 5},
	{name: "explorer", proves: "the profile explorer in headless Chromium, with hostile traits", run: "tests/check/npm.sh tests/explorer && tests/explorer/run.sh", needs: []string{"node", "npm", "chromium"}, minutes: 6},
	{name: "cases", proves: "small inputs that once gave a wrong result give the right one", run: "BIN=$PWD/bin/connect-personalize go run ./tests/cases", minutes: 5},
	{name: "import", proves: "importing the purchases of DATA twice gives the same, correct profiles", run: findSample + `tests/cdnow/import.sh "$DATA"`, settings: sample, minutes: 5},
	{name: "cdnow", proves: "models fitted to the purchases of DATA have the published parameters", run: findSample + `go run ./tests/cdnow fit "$DATA"`, settings: sample, minutes: 5},
}
