package models

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// File follows a parameter file of one model. A file that is wrong is never
// taken: the last good parameters stay.
type File[M BGNBD | GammaGamma | Propensity] struct {
	*follow.Files[os.FileInfo] // by time and size

	path    string
	current atomic.Pointer[M]
}

// Open reads the parameter file at path, which must be of the model M.
func Open[M BGNBD | GammaGamma | Propensity](path string) (*File[M], error) {
	f := &File[M]{path: path}
	var err error
	f.Files, err = follow.Open(follow.Info(path), follow.Source[os.FileInfo]{
		Look: func(os.FileInfo) (os.FileInfo, error) { return follow.Info(path), nil },
		Same: follow.SameInfo,
		Take: func(info os.FileInfo) (os.FileInfo, error) { return info, f.load() },
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Path is the path of the file.
func (f *File[M]) Path() string { return f.path }

// Current returns the parameters as they now are. They do not change; a later
// call may return others.
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
