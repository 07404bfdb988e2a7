package models

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// File is a parameter file that is reloaded on change. An invalid version is
// never loaded: the last valid parameters stay in use.
type File[M BGNBD | GammaGamma | Propensity] struct {
	*follow.Files[os.FileInfo] // by time and size

	path    string
	current atomic.Pointer[M]
}

// Open loads the parameter file at path, which must contain a model of type M.
func Open[M BGNBD | GammaGamma | Propensity](path string) (*File[M], error) {
	f := &File[M]{path: path}
	var err error
	f.Files, err = follow.Open(follow.Info(path), follow.Source[os.FileInfo]{
		State: func(os.FileInfo) (os.FileInfo, error) { return follow.Info(path), nil },
		Equal: follow.SameInfo,
		Load:  func(info os.FileInfo) (os.FileInfo, error) { return info, f.load() },
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Path returns the path of the file.
func (f *File[M]) Path() string { return f.path }

// Current returns the current parameters, which are immutable. A later call may
// return other parameters.
func (f *File[M]) Current() *M { return f.current.Load() }

func (f *File[M]) load() error {
	loaded, err := Load(f.path)
	if f.Current() != nil && errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the last parameters stay in use; put the file back", err)
	}
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
