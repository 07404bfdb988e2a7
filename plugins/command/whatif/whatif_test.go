package whatif

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/profiles"
	_ "github.com/connect-personalize/connect-personalize/plugins/updateprofile"
)

const definition = `
features:
  - { name: orders, count: { events: [Order Completed] } }
segments:
  - { name: buyer, when: 'features.orders >= parameters.least' }
parameters: { least: 1 }
messages: { channels: [ { name: email, consent: traits.consent == true } ] }
triggers:
  - { name: thanks, on: { events: [Order Completed], repeat: each }, after: 2h, channel: email }
`

// shop creates a store of ten customers and a config that names it. Customers with
// even numbers ordered an hour ago.
func shop(t *testing.T) (config string) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	config = write("pipeline.yaml", fmt.Sprintf("input: { stdin: {} }\nprofiles:\n  - label: shop\n    definition: %s\n    store: { embedded: { path: \"${SHOP_DATA:%s}\" } }\n", write("profile.yaml", definition), filepath.Join(dir, "data")))
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	item, _, err := itemOf(text, "")
	require.NoError(t, err)
	p, err := profiles.OpenItem(item, "", "", service.MockResources())
	require.NoError(t, err)
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	var events [][]byte
	for i := range 10 {
		events = append(events, fmt.Appendf(nil, `{"type":"identify","messageId":"i%d","userId":"u%d","anonymousId":"a%d","timestamp":%q,"traits":{"email":"jo@example.com","consent":%t}}`, i, i, i, at, i < 6))
		if i%2 == 0 {
			events = append(events, fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"o%d","userId":"u%d","timestamp":%q}`, i, i, at))
		}
	}
	errs, err := p.Update(context.Background(), events)
	require.NoError(t, err)
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(context.Background()))
	return config
}

func ask(t *testing.T, args ...string) (string, error) {
	var out, progress bytes.Buffer
	command := Command("x")
	command.Action = func(c *cli.Context) error { return run(c, &out, &progress) }
	app := &cli.App{Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}, Writer: &progress, ErrWriter: &progress}
	err := app.Run(append([]string{"x", "what-if"}, args...))
	return out.String(), err
}

func TestQuery(t *testing.T) {
	config := shop(t)
	out, err := ask(t, "-c", config, "--when", "features.orders > 0 && traits.consent", "--at", "2030-01-01T00:00:00Z")
	require.NoError(t, err)
	require.Contains(t, out, "10 customers as of 2030-01-01T00:00:00Z\n3 match (30.0%)\nsample\n")
	for _, id := range []string{"u0", "u2", "u4"} {
		require.Contains(t, out, "  "+id+"\n")
	}
	require.NotContains(t, out, "jo@example.com", "no personal data unless asked")

	out, err = ask(t, "-c", config, "--when", "features.orders > 0", "--sample", "2", "--show")
	require.NoError(t, err)
	require.Contains(t, out, "5 match")
	require.Equal(t, 2, bytes.Count([]byte(out), []byte("jo@example.com")))

	out, err = ask(t, "-c", config, "--when", "traits.nothing > 1")
	require.NoError(t, err)
	require.Contains(t, out, "0 match (0.0%)\n10 for which the query fails")
}

func TestTrigger(t *testing.T) {
	config := shop(t)
	for range 2 { // asking changes nothing
		out, err := ask(t, "-c", config, "--trigger", "thanks")
		require.NoError(t, err)
		require.Contains(t, out, "thanks is pending for 5 (50.0%)\n  due within 1h           5\ndecisions if they were due now\n  fired                   3\n  no_consent              2\n")
	}
	other := filepath.Join(t.TempDir(), "new.yaml")
	require.NoError(t, os.WriteFile(other, []byte(definition+"  - { name: soon, on: { events: [Order Completed] }, after: 90m, channel: email, when: features.orders > 1 }\n  - { name: at_once, on: { events: [Order Completed] }, channel: email }\n"), 0o600))
	out, err := ask(t, "-c", config, "--definition", other, "--trigger", "soon")
	require.NoError(t, err)
	require.Contains(t, out, "soon is pending for 5 (50.0%)\n  due within 1h           5\ndecisions if they were due now\n  condition               3\n  no_consent              2\n")
	out, err = ask(t, "-c", config, "--definition", other, "--trigger", "at_once")
	require.NoError(t, err)
	require.Contains(t, out, "at_once is pending for 5 (50.0%)\n  due now                 5\ndecisions if they were due now\n  predates                5\n")
}

func TestSegment(t *testing.T) {
	config := shop(t)
	for range 2 { // asking changes nothing
		out, err := ask(t, "-c", config, "--segment", "buyer", "--sample", "1")
		require.NoError(t, err)
		require.Contains(t, out, "5 match (50.0%)\n         0 of them are not members and would enter\n         0 members do not match and would leave\nsample\n")
	}
	for text, want := range map[string]string{
		strings.Replace(definition, "least: 1", "least: 2", 1): "0 match (0.0%)\n         0 of them are not members and would enter\n         5 members do not match and would leave\n",
		strings.Replace(definition, "least: 1", "least: 0", 1): "10 match (100.0%)\n         5 of them are not members and would enter\n         0 members do not match and would leave\n",
	} {
		other := filepath.Join(t.TempDir(), "new.yaml")
		require.NoError(t, os.WriteFile(other, []byte(text), 0o600))
		out, err := ask(t, "-c", config, "--definition", other, "--segment", "buyer")
		require.NoError(t, err)
		require.Contains(t, out, want)
	}
}

// pipeline returns a config with a missing store and a pipeline that rejects events
// without an id.
func pipeline(t *testing.T, brokers string) (config string) {
	dir := t.TempDir()
	path := filepath.Join(dir, "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(definition), 0o600))
	config = filepath.Join(dir, "pipeline.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
profiles: [ { label: shop, definition: %s, store: { redis: { url: "redis://127.0.0.1:1" } } } ]
input: { kafka_topic: { seed_brokers: [ %q ], topics: [ events ], consumer_group: shop } }
pipeline:
  threads: 2
  processors:
    - mapping: 'root = this.without("noise")'
    - update_profile: { profiles: shop }
output: { drop: {} }
`, path, brokers), 0o600))
	return config
}

// day is what 3,000 customers did on a day.
func day() (events [][]byte) {
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for i := range 3000 {
		events = append(events, fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"o%d","userId":"u%d","timestamp":%q,"noise":1}`, i, i%1000, at))
	}
	return append(events, []byte(`{"type":"track"}`), []byte(`no event`))
}

func TestReplayOfAFile(t *testing.T) {
	config := pipeline(t, "127.0.0.1:1")
	file := filepath.Join(t.TempDir(), "day.jsonl")
	require.NoError(t, os.WriteFile(file, bytes.Join(day(), []byte("\n")), 0o600))
	for range 2 { // nothing stays of it
		out, err := ask(t, "-c", config, "--events", file, "--segment", "buyer", "--sample", "3")
		require.NoError(t, err)
		require.Contains(t, out, "3002 events, 2 of them refused, as replayed\n1000 customers as of ")
		require.Contains(t, out, "1000 match (100.0%)\n")
	}
	out, err := ask(t, "-c", config, "--events", file, "--trigger", "thanks")
	require.NoError(t, err)
	require.Contains(t, out, "thanks is pending for 1000 (100.0%)\n  due within 1h        3000\n")
	_, err = ask(t, "-c", config, "--events", file+"x", "--segment", "buyer")
	require.ErrorContains(t, err, "no such file")
	_, err = ask(t, "-c", shop(t), "--events", file, "--segment", "buyer")
	require.ErrorContains(t, err, "has no update_profile")
}

func TestReplayOfATopic(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "events"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	for _, e := range day() {
		client.Produce(context.Background(), &kgo.Record{Topic: "events", Value: e}, nil)
	}
	require.NoError(t, client.Flush(context.Background()))
	config := pipeline(t, cluster.ListenAddrs()[0])
	for range 2 { // nothing stays of it
		out, err := ask(t, "-c", config, "--replay", "--segment", "buyer")
		require.NoError(t, err)
		require.Contains(t, out, "3002 events, 2 of them refused, as replayed\n1000 customers as of ")
	}
	groups, err := kadm.NewClient(client).ListGroups(context.Background())
	require.NoError(t, err)
	require.Empty(t, groups, "it is a member of no group")
}

func TestInvalidArgumentsAreRejected(t *testing.T) {
	config := shop(t)
	for _, test := range []struct {
		want string
		args []string
	}{
		{"write one of --when", []string{"-c", config}},
		{"write one of --when", []string{"-c", config, "--when", "true", "--trigger", "thanks"}},
		{"one of --events and --replay", []string{"-c", config, "--when", "true", "--replay", "--events", "-"}},
		{`no segment "buyers"; did you mean "buyer"?`, []string{"-c", config, "--segment", "buyers"}},
		{"-c configs/", []string{"--when", "true"}},
		{"no such file", []string{"-c", config + "x", "--when", "true"}},
		{"no profiles with the label", []string{"-c", config, "--profiles", "other", "--when", "true"}},
		{`no trigger "thank"; did you mean "thanks"?`, []string{"-c", config, "--trigger", "thank"}},
		{`no feature "order"`, []string{"-c", config, "--when", "features.order > 1"}},
		{"unexpected argument", []string{"-c", config, "--when", "features.orders", ">", "1"}},
		{"the query", []string{"-c", config, "--when", "features.orders >"}},
		{"--sample", []string{"-c", config, "--when", "true", "--sample", "-1"}},
	} {
		_, err := ask(t, test.args...)
		require.ErrorContains(t, err, test.want)
	}
}

func TestEnvironmentVariablesAreReplaced(t *testing.T) {
	t.Setenv("WHAT_IF_SET", "value")
	require.Equal(t, "a value b default c  d nested e", fillIn("a ${WHAT_IF_SET:x} b ${WHAT_IF_NOT:default} c ${WHAT_IF_NOT} d ${WHAT_IF_NOT:${WHAT_IF_NEITHER:nested}} e"))
}
