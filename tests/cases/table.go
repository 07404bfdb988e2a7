package main

// post is a request to the collector.
type post struct{ path, body string }

// served is a case that sends events and then reads a value of a profile.
type served struct {
	name   string
	config string // server.yaml by default
	posts  []post
	answer string // part of the last response of the collector
	get    string // path of the profile API
	value  string // path of a member in the response
	want   string // its JSON
}

// command is a case that runs the program to its end.
type command struct {
	name  string
	args  []string
	env   string // one variable
	code  int    // expected exit code
	wants []string
	lacks []string
	file  string // read this file of DATA_DIR instead of the output
}

const (
	inputs     = "tests/cases/inputs/"
	quickstart = "configs/quickstart.yaml"
)

func order(id, properties string) post {
	return post{"track", `{"userId":"` + id + `","event":"Order Completed","properties":` + properties + `}`}
}

var servedCases = []served{
	{name: "an overflowing sum is null", posts: []post{order("sum", `{"order_id":"1","total":1.7976931348623157e308}`), order("sum", `{"order_id":"2","total":1.7976931348623157e308}`)}, get: "/api/customer/sum", value: "features.revenue", want: "null"},
	{name: "an overflowing deviation is null", posts: []post{order("dev", `{"order_id":"1","total":1e155}`), order("dev", `{"order_id":"2","total":1}`)}, get: "/api/customer/dev", value: "features.deviation", want: "null"},
	{name: "an exponent is parsed exactly", posts: []post{order("exp", `{"order_id":"1","total":1.007E7}`)}, get: "/api/customer/exp", value: "features.revenue", want: "10070000"},
	{name: "a large integer keeps its digits", posts: []post{{"identify", `{"userId":"big","traits":{"crm_number":9007199254740993}}`}}, get: "/api/customer/big", value: "traits.crm_number", want: "9007199254740993"},
	{name: "a large integer is found by its digits", get: "/api/customer/9007199254740993?by=crm_number", value: "id", want: `"big"`},
	{name: "repeated events without ids count", posts: []post{{"track", `{"userId":"rep","event":"Product Viewed","properties":{"product_id":"p1"}}`}, {"pause", ""}, {"track", `{"userId":"rep","event":"Product Viewed","properties":{"product_id":"p1"}}`}, {"pause", ""}, {"track", `{"userId":"rep","event":"Product Viewed","properties":{"product_id":"p1"}}`}}, get: "/api/customer/rep", value: "features.views", want: "3"},
	{name: "a lone surrogate becomes U+FFFD", posts: []post{{"identify", `{"userId":"sur","traits":{"motto":"hi \ud83d"}}`}}, get: "/api/customer/sur", value: "traits.motto", want: "\"hi \uFFFD\""},
	{name: "the last of duplicate keys wins", posts: []post{order("dup", `{"order_id":"1","total":1,"total":2}`)}, get: "/api/customer/dup", value: "features.revenue", want: "2"},
	{name: "an id that the API refuses is rejected", posts: []post{{"track", `{"userId":"` + long + `","event":"Order Completed"}`}}, answer: `"rejected":1`},
	{name: "a numeric id becomes text", config: quickstart, posts: []post{{"batch", `{"batch":[{"type":"track","userId":4711,"event":"Order Completed","properties":{"order_id":"1","total":1,"currency":"EUR","products":[]}}]}`}}, get: "/api/customer/4711", value: "features.orders", want: "1"},
	{name: "an opt-out beside a non-ASCII address counts", config: quickstart, posts: []post{{"identify", `{"userId":"uc","traits":{"marketing_consent":true}}`}, {"identify", `{"userId":"uc","traits":{"email":"jö@example.com","marketing_consent":false}}`}}, get: "/api/customer/uc", value: "traits.marketing_consent", want: "false"},
	{name: "revenue by category multiplies by quantity", config: quickstart, posts: []post{order("q", `{"order_id":"1","total":60,"currency":"EUR","products":[{"product_id":"p","name":"hat","category":"hats","price":20,"quantity":3}]}`)}, get: "/api/customer/q", value: "features.revenue_by_category", want: `{"hats":60}`},
	{name: "a refund reduces revenue", config: quickstart, posts: []post{order("rfd", `{"order_id":"A","total":600,"currency":"EUR","products":[]}`), {"track", `{"userId":"rfd","event":"Order Refunded","properties":{"order_id":"A","total":600,"currency":"EUR"}}`}}, get: "/api/customer/rfd", value: "features.revenue", want: "0"},
}

var commandCases = []command{
	{name: "a phone of another country is not German", args: []string{"-c", inputs + "clean.yaml"}, env: "IN=" + inputs + "clean/phone.jsonl", lacks: []string{"+4961123456"}},
	{name: "a time of YYYYMMDDhhmm is not epoch seconds", args: []string{"-c", inputs + "clean.yaml"}, env: "IN=" + inputs + "clean/minutes.jsonl", lacks: []string{"1976-"}},
	{name: "names of countries", args: []string{"-c", inputs + "countries.yaml"}, wants: []string{"BA TT AG SZ HK VA GB - - - - -"}},
	{name: "plan-diff: patternProperties removed", args: diff("pattern_properties"), code: 1},
	{name: "plan-diff: unevaluatedProperties added", args: diff("unevaluated"), code: 1},
	{name: "plan-diff: anyOf removed", args: diff("any_of"), code: 1},
	{name: "plan-diff: format removed", args: diff("format"), code: 1},
	{name: "plan-diff: typed property in an open object", args: diff("typed"), code: 1},
	{name: "advice does not stop a run", args: []string{"-c", inputs + "advice/pipeline.yaml"}, wants: []string{"Size Chosen"}},
	{name: "const beside $ref is ignored in draft 7", args: []string{"-c", inputs + "ref/pipeline.yaml"}, wants: []string{"valid"}, lacks: []string{"must be"}},
	{name: "numeric expectations fail for texts", args: []string{"run", "--chilled", inputs + "strings/pipeline.yaml"}, file: "report.jsonl", wants: []string{`"success":false`}, lacks: []string{`"success":true`}},
	{name: "a ratio beside a tracking plan lints", args: []string{"lint", inputs + "ratio/pipeline.yaml"}},
	{name: "a blank time zone is the default one", args: []string{"what-if", "-c", inputs + "tz/pipeline.yaml", "--trigger", "spring", "--events", inputs + "tz/events.jsonl", "--at", "2026-07-01T20:00:00Z"}, wants: []string{"2026-07-02T06:00"}},
	{name: "%k is a flag of strftime", args: []string{"lint", inputs + "strftime.yaml"}},
}

func diff(name string) []string {
	return []string{"plan-diff", inputs + "plans/" + name + "_old.yaml", inputs + "plans/" + name + "_new.yaml"}
}
