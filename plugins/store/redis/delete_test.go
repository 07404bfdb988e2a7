package redis

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

func TestDeleteAllDeletesTheStoreOnAllServers(t *testing.T) {
	for _, o := range each(t) {
		o = fresh(t, o)
		other := fresh(t, Options{URL: o.URL, Mode: o.Mode})
		for _, o := range []Options{o, other} {
			s := open(t, o)
			var changes []store.Change
			for i := range 3000 {
				changes = append(changes, store.Change{Key: fmt.Sprint(i), Data: []byte("v"), Index: []store.IndexEdit{{Index: "i", Value: fmt.Sprint(i % 100)}}})
			}
			conflicts, err := s.Commit(ctx, changes)
			require.NoError(t, err)
			require.Empty(t, conflicts)
		}
		counted, err := DeleteAll(ctx, o, true)
		require.NoError(t, err)
		deleted, err := DeleteAll(ctx, o, false)
		require.NoError(t, err)
		require.Equal(t, counted, deleted)
		require.Greater(t, deleted, int64(3000))

		s := open(t, o)
		page, next, err := s.Scan(ctx, "", 10)
		for ; err == nil && next != "" && len(page) == 0; page, next, err = s.Scan(ctx, next, 10) {
		}
		require.NoError(t, err)
		require.Empty(t, page)
		n, err := open(t, other).CountIndex(ctx, "i", "", "")
		require.NoError(t, err)
		require.EqualValues(t, 3000, n, "the other store is complete")
		_, err = DeleteAll(ctx, fresh(t, Options{URL: o.URL, Mode: o.Mode}), false)
		require.ErrorIs(t, err, ErrNoStore)
	}
}
