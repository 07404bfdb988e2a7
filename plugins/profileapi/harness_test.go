package profileapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	yamlv3 "gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// patience bounds what must happen soon; no test waits for it to pass.
const patience = 20 * time.Second

// fakeProfiles is an in-memory profiles resource.
type fakeProfiles struct {
	mu        sync.Mutex
	profiles  map[string]string   // JSON by id
	merged    map[string]string   // ids of profiles by ids merged into them
	anonymous map[string]bool     // ids of profiles that are anonymousIds
	early     map[string]bool     // ids of records that cannot be evaluated at an earlier as_of
	corrupt   map[string]bool     // ids of records that cannot be decoded
	emails    map[string][]string // ids of profiles by their e-mail addresses
	readErr   error
	pingErr   error
	pings     int
	trips     []trip

	// onRead, if set, runs at the start of every read.
	onRead func(ctx context.Context, ids []string) error
}

type trip struct {
	ids   []string
	query customers.Query
}

func (f *fakeProfiles) Read(ctx context.Context, ids []string, q customers.Query) ([]customers.Result, error) {
	f.mu.Lock()
	f.trips = append(f.trips, trip{append([]string(nil), ids...), q})
	onRead := f.onRead
	f.mu.Unlock()
	if onRead != nil {
		if err := onRead(ctx, ids); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readErr != nil {
		return nil, f.readErr
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	results := make([]customers.Result, len(ids))
	if q.By != "" && q.By != "email" {
		return nil, &customers.UnknownIdentifierError{Name: q.By, Declared: f.Identifiers()}
	}
	for i, id := range ids {
		var err error
		if id, err = f.find(id, q.By); err != nil {
			results[i].Err = err
			continue
		}
		if f.corrupt[id] {
			results[i].Err = record.ErrCorrupt
			continue
		}
		if into, ok := f.merged[id]; ok {
			id = into
		}
		if text, ok := f.profiles[id]; ok {
			results[i] = customers.Result{Found: true, ID: id, JSON: []byte(text), Complete: !f.early[id], Anonymous: f.anonymous[id]}
		}
	}
	return results, nil
}

// find returns the id that a value of an identifier, or an id, stands for.
func (f *fakeProfiles) find(id, by string) (string, error) {
	if by == "" {
		return id, nil
	}
	switch found := f.emails[strings.ToLower(id)]; len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", customers.ErrAmbiguous
}

func (f *fakeProfiles) Identifiers() []string { return []string{"email"} }

// SegmentMembers lists the profiles as the members of the segment everyone.
func (f *fakeProfiles) SegmentMembers(_ context.Context, name, after string, limit int) ([]customers.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "everyone" {
		return nil, &customers.UnknownSegmentError{Name: name}
	}
	var members []customers.Member
	for id := range f.profiles {
		if m := (customers.Member{ID: id, Anonymous: f.anonymous[id]}); m.Key() > after {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b customers.Member) int { return strings.Compare(a.Key(), b.Key()) })
	return members[:min(limit, len(members))], f.readErr
}

func (f *fakeProfiles) SegmentCount(_ context.Context, name string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "everyone" {
		return 0, &customers.UnknownSegmentError{Name: name}
	}
	return int64(len(f.profiles)), f.readErr
}

func (f *fakeProfiles) Export(_ context.Context, id, by string) (customers.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, err := f.find(id, by)
	if err != nil || id == "" {
		return customers.Result{Err: err}, f.readErr
	}
	if _, ok := f.profiles[id]; !ok {
		return customers.Result{}, f.readErr
	}
	return customers.Result{Found: true, ID: id, JSON: []byte(`{"kind":"userId","id":"` + id + `","updated_at":null,"traits":[],"events":[],"summaries":[],"merged":[],"segments":[],"messages":[]}`)}, f.readErr
}

func (f *fakeProfiles) Ping(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pings++
	return f.pingErr
}

func (f *fakeProfiles) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeProfiles) seen() []trip {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]trip(nil), f.trips...)
}

// profileOf is a profile as the resource writes it.
func profileOf(id string) string {
	quoted, err := json.Marshal(id)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"id":%s,"traits":{"plan":"gold"},"features":{"orders_30d":2},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z"}`, quoted)
}

func withProfiles(ids ...string) *fakeProfiles {
	f := &fakeProfiles{profiles: map[string]string{}, early: map[string]bool{}, corrupt: map[string]bool{}}
	for _, id := range ids {
		f.profiles[id] = profileOf(id)
	}
	return f
}

// server is an input that listens, without a pipeline behind it.
type server struct {
	*input
	url    string
	client *http.Client
	log    *syncBuffer
}

// newTestInput makes an input of a config, given as YAML.
func newTestInput(t testing.TB, r reader, yaml string) (*input, error) {
	t.Helper()
	return newLoggingInput(t, r, yaml, newSyncBuffer())
}

func newLoggingInput(t testing.TB, r reader, yaml string, log *syncBuffer) (*input, error) {
	t.Helper()
	var fields map[string]any
	require.NoError(t, yamlv3.Unmarshal([]byte(yaml), &fields))
	if fields == nil {
		fields = map[string]any{}
	}
	fields["profiles"] = "shop"
	whole, err := yamlv3.Marshal(fields)
	require.NoError(t, err)
	parsed, err := spec().ParseYAML(string(whole), nil)
	require.NoError(t, err)
	return newInput(parsed, r, service.MockResources(service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(debugLogger(log)))))
}

func debugLogger(log *syncBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func serve(t testing.TB, r reader, yaml string) *server {
	t.Helper()
	log := newSyncBuffer()
	in, err := newLoggingInput(t, r, yaml, log)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	in.serve(ln)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	scheme := "http://"
	if in.conf.tls != nil {
		scheme = "https://"
	}
	s := &server{input: in, url: scheme + ln.Addr().String(), client: &http.Client{Transport: transport, Timeout: patience}, log: log}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, in.Close(context.Background()))
	})
	return s
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

// code returns the code of an error answer.
func (a answer) code(t testing.TB) string {
	t.Helper()
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &body), "body: %s", a.body)
	require.NotEmpty(t, body.Error.Message)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	return body.Error.Code
}

// do makes a request; headers are given as "Name: value".
func (s *server) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	a, err := s.try(method, path, body, headers...)
	require.NoError(t, err)
	return a
}

func (s *server) try(method, path, body string, headers ...string) (answer, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	request, err := http.NewRequest(method, s.url+path, r)
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	a := answer{response.StatusCode, response.Header, string(read)}
	if err == nil {
		// Every answer that a test gets is one that the description describes.
		err = served().conforms(method, request.URL, a)
	}
	return a, err
}

// syncBuffer collects a log.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// changed is signalled after each line.
	changed chan struct{}
}

func newSyncBuffer() *syncBuffer { return &syncBuffer{changed: make(chan struct{}, 1)} }

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.buf.Write(p)
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return n, err
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await returns what follows the first occurrence of text in the log, up to
// the next space or quote.
func (b *syncBuffer) await(t testing.TB, text string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		if _, rest, ok := strings.Cut(b.String(), text); ok {
			return rest[:strings.IndexAny(rest, " \"\n")]
		}
		select {
		case <-b.changed:
		case <-deadline:
			t.Fatalf("the log never said %q:\n%s", text, b.String())
		}
	}
}

// stream is a pipeline with a profile_api input.
type stream struct {
	*server
	stop func() error
}

// testEnvironment has a profile_api that serves r.
func testEnvironment(t testing.TB, r reader) *service.Environment {
	t.Helper()
	env := service.GlobalEnvironment().Clone()
	require.NoError(t, env.RegisterBatchInput("profile_api", spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
			return newInput(conf, r, res)
		}))
	return env
}

// run starts a pipeline that sends its messages to consume.
func run(t testing.TB, r reader, fields string, consume service.MessageHandlerFunc) *stream {
	t.Helper()
	builder := testEnvironment(t, r).NewStreamBuilder()
	require.NoError(t, builder.AddConsumerFunc(consume))
	return runBuilder(t, builder, fields)
}

// runBuilder starts a pipeline that lacks only its input.
func runBuilder(t testing.TB, builder *service.StreamBuilder, fields string) *stream {
	t.Helper()
	require.NoError(t, builder.AddInputYAML("label: api\nprofile_api:\n  profiles: shop\n  address: 127.0.0.1:0\n"+fields))
	return start(t, builder)
}

// start runs a pipeline until the test ends.
func start(t testing.TB, builder *service.StreamBuilder) *stream {
	t.Helper()
	log := newSyncBuffer()
	builder.SetLogger(debugLogger(log))
	built, err := builder.Build()
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- built.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		// Run first: one that still waits closes every resource a second time.
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return built.StopWithin(patience)
	})
	url := log.await(t, "Listening on ")
	transport := &http.Transport{}
	s := &stream{
		server: &server{url: url, client: &http.Client{Transport: transport, Timeout: patience}, log: log},
		stop:   stop,
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, stop())
	})
	return s
}
