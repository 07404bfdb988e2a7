package deleteprofiles

import (
	"bytes"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{Writer: &out, ErrWriter: &out, ExitErrHandler: func(*cli.Context, error) {}, Commands: []*cli.Command{Command("program")}}
	err := app.Run(append([]string{"program", "delete-profiles"}, args...))
	return out.String(), err
}

// TestOnlyKeysOfTheStoreAreDeleted has ids that look like keys of another store, which
// shell commands such as xargs would split and delete.
func TestOnlyKeysOfTheStoreAreDeleted(t *testing.T) {
	server := miniredis.RunT(t)
	url := "redis://" + server.Addr()
	for _, prefix := range []string{"profiles", "profiles-2", "pro*"} {
		s, err := redis.Open(redis.Options{URL: url, Prefix: prefix, Shards: 3})
		require.NoError(t, err)
		for _, id := range []string{"vip", "x profiles-2:p:{0}vip y", "line\nbreak", "{}"} {
			_, err = s.Commit(t.Context(), []store.Change{{Key: id, Data: []byte("v"), Index: []store.IndexEdit{{Index: "email", Value: id}}}})
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
	}
	foreign := []string{"profiles", "profiles:other", "profiles:p:{999}vip", "profiles:p:vip", "profiles:i:{x}email", "profiles:x:{0}vip", "Profiles:p:{0}vip"}
	for _, key := range foreign {
		require.NoError(t, server.Set(key, "precious"))
	}
	before := server.Keys()

	out, err := run(t, "--url", url, "--prefix", "profiles")
	require.NoError(t, err)
	require.Equal(t, before, server.Keys(), "without --yes nothing is deleted")
	require.Contains(t, out, "Repeat the command with --yes")

	out, err = run(t, "--url", url, "--prefix", "profiles", "--yes")
	require.NoError(t, err)
	require.Contains(t, out, `keys of the store at prefix "profiles"`)
	for _, key := range foreign {
		require.True(t, server.Exists(key), key)
	}
	for _, prefix := range []string{"profiles-2", "pro*"} {
		s, err := redis.Open(redis.Options{URL: url, Prefix: prefix, Shards: 3})
		require.NoError(t, err)
		records, err := s.Load(t.Context(), []string{"vip", "x profiles-2:p:{0}vip y", "line\nbreak", "{}"})
		require.NoError(t, err)
		for _, r := range records {
			require.Equal(t, "v", string(r.Data))
		}
		n, err := s.CountIndex(t.Context(), "email", "", "")
		require.NoError(t, err)
		require.EqualValues(t, 4, n)
		require.NoError(t, s.Close())
	}
	require.Len(t, server.Keys(), len(before)-deletedKeys(before), "nothing of the store is left")

	_, err = run(t, "--url", url, "--prefix", "profiles", "--yes")
	require.ErrorContains(t, err, `there is no store at this prefix: "profiles"`)
}

// deletedKeys counts 4 records, their index keys in up to 3 shards, and the layout.
func deletedKeys(keys []string) (n int) {
	kept := map[string]bool{"profiles:other": true, "profiles:p:{999}vip": true, "profiles:p:vip": true, "profiles:i:{x}email": true, "profiles:x:{0}vip": true}
	for _, key := range keys {
		if len(key) > 9 && key[:9] == "profiles:" && !kept[key] {
			n++
		}
	}
	return n
}
