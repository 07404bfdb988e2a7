package customers

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

func TestTooLargeProfileRejectsOnlyItsEvents(t *testing.T) {
	def, err := profiledefinition.Read(writeDefinition(t, shop))
	require.NoError(t, err)
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory, MaxRecordBytes: 2000})
	require.NoError(t, err)
	p := New(def, s, Options{})
	defer func() { require.NoError(t, p.Close(context.Background())) }()

	large := fmt.Sprintf(`{"about":%q}`, strings.Repeat("x", 3000))
	const later = "2026-01-02T03:04:06Z"
	check := func(errs []error, bad ...int) {
		t.Helper()
		for i, err := range errs {
			wrong := false
			for _, n := range bad {
				wrong = wrong || n == i
			}
			require.Equal(t, wrong, err != nil, "%d: %v", i, err)
			if err != nil {
				var e *event.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, "size", e.Rule)
				require.NotContains(t, e.Message, "u1")
			}
		}
	}
	check(apply(t, p, order("m1", `"userId":"u1"`, 1), order("m2", `"userId":"u2"`, 2)))
	check(apply(t, p,
		order("m3", `"userId":"u2"`, 2), identify("m4", "u1", "", later, "web", large),
		order("m5", `"userId":"u3"`, 3), identify("m6", "u4", "", later, "web", large)), 1, 3)
	for who, orders := range map[string]float64{"u1": 1, "u2": 2, "u3": 1} {
		v, found := read(t, p, who)
		require.True(t, found, who)
		require.Equal(t, orders, v.Features["orders"], who)
	}
	_, found := read(t, p, "u4")
	require.False(t, found)

	// Small profiles are still updated.
	check(apply(t, p, order("m7", `"userId":"u1"`, 1)))
	v, _ := read(t, p, "u1")
	require.Equal(t, 2.0, v.Features["orders"])

	// A merge with a too large result loses no data: the content stays with the
	// anonymous customer until the event is replayed with enough space.
	some := fmt.Sprintf(`{"a":%q}`, strings.Repeat("x", 1200))
	check(apply(t, p, order("m8", `"anonymousId":"a1"`, 5), identify("m9", "u5", "", later, "web", some)))
	more := fmt.Sprintf(`{"b":%q}`, strings.Repeat("y", 1200))
	check(apply(t, p, identify("m10", "u5", "a1", later, "web", more)), 0)
	check(apply(t, p, identify("m11", "u5", "", "2026-01-02T03:04:07Z", "web", `{"a":null}`)))
	check(apply(t, p, identify("m10", "u5", "a1", later, "web", more)))
	v, _ = read(t, p, "u5")
	require.Equal(t, 1.0, v.Features["orders"])
}

func TestStoreOutageIsLoggedOnce(t *testing.T) {
	p := open(t, shop)
	var log strings.Builder
	p.log = service.NewLoggerFromSlog(slog.New(slog.NewTextHandler(&log, nil)))
	p.StoreRecovered()
	require.Empty(t, log.String())
	for range 2 {
		for range 3 {
			p.StoreFailed(store.ErrClosed)
		}
		for range 3 {
			p.StoreRecovered()
		}
	}
	require.Equal(t, 2, strings.Count(log.String(), "is unavailable"))
	require.Equal(t, 2, strings.Count(log.String(), "is available again"))
}
