package follow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// fakeFiles have a text as their state. A text that begins with ! is invalid.
type fakeFiles struct {
	text    string
	missing error
	loaded  string
}

func (s *fakeFiles) source() Source[string] {
	return Source[string]{
		State: func(string) (string, error) { return s.text, s.missing },
		Equal: func(a, b string) bool { return a == b },
		Load: func(now string) (string, error) {
			if now[0] == '!' {
				return now, errors.New(now)
			}
			s.loaded = now
			return now, nil
		},
	}
}

func TestCheckLoadsAChangeThatTwoPollsFind(t *testing.T) {
	s := &fakeFiles{text: "a"}
	f, err := Open("a", s.source())
	require.NoError(t, err)
	gone := errors.New("gone")
	for i, step := range []struct {
		text    string
		missing error
		result  string // "loaded" or the error
		loaded  string
	}{
		{text: "a", loaded: "a"},
		{text: "b", loaded: "a"},
		{text: "bc", loaded: "a"}, // it was still being written
		{text: "bc", loaded: "bc", result: "loaded"},
		{text: "bc", loaded: "bc"},
		{text: "!", loaded: "bc"},
		{text: "!", loaded: "bc", result: "!"},
		{text: "!", loaded: "bc"}, // reported once
		{text: "bc", loaded: "bc"},
		{text: "bc", loaded: "bc", result: "loaded"},
		{text: "d", loaded: "bc"},
		{text: "bc", loaded: "bc"}, // the change was reverted
		{text: "d", loaded: "bc"},
		{missing: gone, loaded: "bc", result: "gone"},
		{missing: gone, loaded: "bc"},
		{text: "d", loaded: "bc"},
		{text: "d", loaded: "d", result: "loaded"},
		{missing: gone, loaded: "d", result: "gone"},
		{text: "d", loaded: "d"},
	} {
		s.text, s.missing = step.text, step.missing
		reloaded, err := f.Check()
		result := ""
		switch {
		case reloaded && err != nil:
			result = err.Error()
		case reloaded:
			result = "loaded"
		}
		require.Equal(t, step.result, result, "step %d", i)
		require.Equal(t, step.loaded, s.loaded, "step %d", i)
	}
}

func TestOnlyStatesOfTwoConsecutivePollsAreLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &fakeFiles{text: "a"}
		f, err := Open("a", s.source())
		require.NoError(t, err)
		last, loaded := "", "a"
		for _, text := range rapid.SliceOf(rapid.SampledFrom([]string{"a", "b", "!c", "!d"})).Draw(t, "states") {
			s.text = text
			reloaded, err := f.Check()
			require.Equal(t, text == last && text != loaded, reloaded)
			if last = text; reloaded {
				loaded = text
				require.Equal(t, text[0] == '!', err != nil)
			}
			require.NotEqual(t, byte('!'), s.loaded[0])
		}
	})
}

func TestOpenReturnsTheErrorOfLoad(t *testing.T) {
	_, err := Open("!", (&fakeFiles{}).source())
	require.Error(t, err)
}

// Load may return another state than the poll found, because it read more files. The
// next poll is compared with that state.
func TestCheckComparesWithTheStateThatLoadReturned(t *testing.T) {
	polls := []string{"b", "b", "b and more", "b and more"}
	f, err := Open("a", Source[string]{
		State: func(string) (string, error) { now := polls[0]; polls = polls[1:]; return now, nil },
		Equal: func(a, b string) bool { return a == b },
		Load:  func(now string) (string, error) { return now + " and more", nil },
	})
	require.NoError(t, err)
	var reloads []bool
	for range 4 {
		reloaded, err := f.Check()
		require.NoError(t, err)
		reloads = append(reloads, reloaded)
	}
	require.Equal(t, []bool{false, true, false, false}, reloads)
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) { // atomically: two polls could find the same half
		require.NoError(t, os.WriteFile(path+"~", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	write("1")
	var loaded string
	f, err := Open(Info(path), Source[os.FileInfo]{
		State: func(os.FileInfo) (os.FileInfo, error) { return Info(path), nil },
		Equal: SameInfo,
		Load: func(now os.FileInfo) (os.FileInfo, error) {
			text, err := os.ReadFile(path)
			if err == nil {
				loaded = string(text)
			}
			return now, err
		},
	})
	require.NoError(t, err)
	require.Equal(t, "1", loaded)

	ctx, stop := context.WithCancel(t.Context())
	results, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		f.Follow(ctx, time.Millisecond, func(err error) { results <- err })
	}()
	write("22")
	require.NoError(t, <-results)
	require.Equal(t, "22", loaded)
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, <-results, os.ErrNotExist)
	require.Equal(t, "22", loaded)
	stop()
	<-ended
}

func TestInfoDistinguishesFilesOfEqualSizeAndTime(t *testing.T) {
	dir := t.TempDir()
	modified := time.Unix(1_700_000_000, 0)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, modified, modified))
		return path
	}
	a, b := file("a", "1"), file("b", "2")
	require.True(t, SameInfo(Info(a), Info(a)))
	require.False(t, SameInfo(Info(a), Info(b)))
	require.False(t, SameInfo(Info(a), nil))
	require.Nil(t, Info(filepath.Join(dir, "none")))
	require.True(t, SameInfo(Info(filepath.Join(dir, "none")), nil))
}
