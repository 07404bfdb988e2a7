package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// File follows a parameter file of one model. A file that is wrong is never
// taken: the last good parameters stay.
type File[M BGNBD | GammaGamma | Propensity] struct {
	path    string
	current atomic.Pointer[M]

	mu sync.Mutex
	// settled is the state of the file that was last read, pending that at the
	// last check if it was another.
	settled, pending fileState
	unsettled        bool
}

// fileState is what tells one state of a file from another without reading it.
type fileState struct {
	// info is nil for a file that is not there.
	info os.FileInfo
}

func stateOf(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}
	}
	return fileState{info}
}

func (s fileState) equal(other fileState) bool {
	if s.info == nil || other.info == nil {
		return s.info == other.info
	}
	return s.info.ModTime().Equal(other.info.ModTime()) && s.info.Size() == other.info.Size() &&
		os.SameFile(s.info, other.info)
}

// Open reads the parameter file at path, which must be of the model M.
func Open[M BGNBD | GammaGamma | Propensity](path string) (*File[M], error) {
	f := &File[M]{path: path}
	if err := f.load(stateOf(path)); err != nil {
		return nil, err
	}
	return f, nil
}

// Path is the path of the file.
func (f *File[M]) Path() string { return f.path }

// Current returns the parameters as they now are. They do not change; a later
// call may return others.
func (f *File[M]) Current() *M { return f.current.Load() }

func (f *File[M]) load(state fileState) error {
	f.settled, f.unsettled = state, false
	loaded, err := Load(f.path)
	if err != nil {
		return err
	}
	parameters, ok := any(loaded).(*M)
	if !ok {
		var wanted M
		return fmt.Errorf("%s holds a %s model where a %s model is needed: name another file, or fit that model into this one",
			f.path, loaded.Kind(), any(&wanted).(Model).Kind())
	}
	f.current.Store(parameters)
	return nil
}

// Check looks at the file's time and size, and tells whether it read the file
// anew; the error is why the parameters in it were not taken, and is told once
// for every change of the file. A changed file is read at the first Check that
// finds it as the one before did, so that one still being written is not read.
func (f *File[M]) Check() (reloaded bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := stateOf(f.path)
	switch {
	case now.equal(f.settled):
		f.unsettled = false
		return false, nil
	case !f.unsettled || !now.equal(f.pending):
		f.pending, f.unsettled = now, true
		return false, nil
	}
	err = f.load(now)
	if err != nil && errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: the last parameters stay in use; put the file back", err)
	}
	return true, err
}

// Follow checks the file at every tick until ctx ends, such as those of a
// time.Ticker, and calls reloaded after each time it read the file anew.
func (f *File[M]) Follow(ctx context.Context, ticks <-chan time.Time, reloaded func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			if ok, err := f.Check(); ok {
				reloaded(err)
			}
		}
	}
}
