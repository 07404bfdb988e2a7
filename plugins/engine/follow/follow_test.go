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

// shelf stands for files: their state is a text, and none that begins with ! is
// taken.
type shelf struct {
	text    string
	missing error
	taken   string
}

func (s *shelf) source() Source[string] {
	return Source[string]{
		Look: func(string) (string, error) { return s.text, s.missing },
		Same: func(a, b string) bool { return a == b },
		Take: func(now string) (string, error) {
			if now[0] == '!' {
				return now, errors.New(now)
			}
			s.taken = now
			return now, nil
		},
	}
}

func TestAChangeIsTakenOnceTwoLooksFindTheSame(t *testing.T) {
	s := &shelf{text: "a"}
	f, err := Open("a", s.source())
	require.NoError(t, err)
	gone := errors.New("gone")
	for i, step := range []struct {
		text    string
		missing error
		told    string
		taken   string
	}{
		{text: "a", taken: "a"},
		{text: "b", taken: "a"},
		{text: "bc", taken: "a"}, // it was still being written
		{text: "bc", taken: "bc", told: "taken"},
		{text: "bc", taken: "bc"},
		{text: "!", taken: "bc"},
		{text: "!", taken: "bc", told: "!"},
		{text: "!", taken: "bc"}, // told once
		{text: "bc", taken: "bc"},
		{text: "bc", taken: "bc", told: "taken"},
		{text: "d", taken: "bc"},
		{text: "bc", taken: "bc"}, // a change that is taken back is none
		{text: "d", taken: "bc"},
		{missing: gone, taken: "bc", told: "gone"},
		{missing: gone, taken: "bc"},
		{text: "d", taken: "bc"},
		{text: "d", taken: "d", told: "taken"},
		{missing: gone, taken: "d", told: "gone"},
		{text: "d", taken: "d"},
	} {
		s.text, s.missing = step.text, step.missing
		reloaded, err := f.Check()
		told := ""
		switch {
		case reloaded && err != nil:
			told = err.Error()
		case reloaded:
			told = "taken"
		}
		require.Equal(t, step.told, told, "step %d", i)
		require.Equal(t, step.taken, s.taken, "step %d", i)
	}
}

func TestWhatIsTakenStoodAtTwoLooksInARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &shelf{text: "a"}
		f, err := Open("a", s.source())
		require.NoError(t, err)
		last, settled := "", "a"
		for _, text := range rapid.SliceOf(rapid.SampledFrom([]string{"a", "b", "!c", "!d"})).Draw(t, "looks") {
			s.text = text
			reloaded, err := f.Check()
			require.Equal(t, text == last && text != settled, reloaded)
			if last = text; reloaded {
				settled = text
				require.Equal(t, text[0] == '!', err != nil)
			}
			require.NotEqual(t, byte('!'), s.taken[0])
		}
	})
}

func TestOpenTellsWhatIsWrong(t *testing.T) {
	_, err := Open("!", (&shelf{}).source())
	require.Error(t, err)
}

// A state that Take knows better than the look, as it read more files, is the one
// that the next look is held against.
func TestTakeSaysWhatItRead(t *testing.T) {
	looks := []string{"b", "b", "b and more", "b and more"}
	f, err := Open("a", Source[string]{
		Look: func(string) (string, error) { now := looks[0]; looks = looks[1:]; return now, nil },
		Same: func(a, b string) bool { return a == b },
		Take: func(now string) (string, error) { return now + " and more", nil },
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
	write := func(text string) { // at once, as two looks may find a half alike
		require.NoError(t, os.WriteFile(path+"~", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	write("1")
	var taken string
	f, err := Open(Info(path), Source[os.FileInfo]{
		Look: func(os.FileInfo) (os.FileInfo, error) { return Info(path), nil },
		Same: SameInfo,
		Take: func(now os.FileInfo) (os.FileInfo, error) {
			text, err := os.ReadFile(path)
			if err == nil {
				taken = string(text)
			}
			return now, err
		},
	})
	require.NoError(t, err)
	require.Equal(t, "1", taken)

	ctx, stop := context.WithCancel(t.Context())
	told, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		f.Follow(ctx, time.Millisecond, func(err error) { told <- err })
	}()
	write("22")
	require.NoError(t, <-told)
	require.Equal(t, "22", taken)
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, <-told, os.ErrNotExist)
	require.Equal(t, "22", taken)
	stop()
	<-ended
}

func TestInfoTellsFilesOfOneSizeAndTimeApart(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
		return path
	}
	a, b := file("a", "1"), file("b", "2")
	require.True(t, SameInfo(Info(a), Info(a)))
	require.False(t, SameInfo(Info(a), Info(b)))
	require.False(t, SameInfo(Info(a), nil))
	require.Nil(t, Info(filepath.Join(dir, "none")))
	require.True(t, SameInfo(Info(filepath.Join(dir, "none")), nil))
}
