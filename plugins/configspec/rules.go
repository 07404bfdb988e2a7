package configspec

// Lint rules use only functions that the create command also has, so not
// parse_duration. Connect applies the rule of a list field to the list and then to
// each item.

// LintPositive rejects an integer below 1.
const LintPositive = `root = if this.number().catch(1) < 1 { "must be at least 1" }`

// LintDuration rejects a duration that is not longer than zero.
const LintDuration = `root = if !this.string().re_match("^[^-]*[1-9]") { "must be longer than zero, such as 5s" }`

// LintCondition rejects a query that assigns where a comparison is meant: Bloblang reads
// `features.orders = 0` as an assignment, so the condition would never be true.
const LintCondition = `root = if this.type() == "string" && this.re_match("""(?m)^\s*(this\.)?(features|traits|segments|parameters|properties|context)(\.[A-Za-z0-9_]+)+\s*=\s*[^=]""") { [ "one = assigns a value: write == to compare" ] }`
