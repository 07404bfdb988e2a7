package faults

import (
	"context"
	"path/filepath"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// processes starts the processes of a run with a common environment, and ends
// the remaining ones.
type processes struct {
	binary string
	dir    string // for logs
	env    []string
	all    []*process.Process
}

func (p *processes) add(name, config string, env ...string) (*process.Process, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	proc := &process.Process{
		Name: name, Binary: p.binary, Config: config, HTTP: address, Log: filepath.Join(p.dir, name+".log"),
		Env: append(append([]string{}, p.env...), append(env, "HTTP_ADDRESS="+address)...),
	}
	p.all = append(p.all, proc)
	return proc, nil
}

func (p *processes) stop() {
	for _, proc := range p.all {
		proc.Kill()
	}
}

// poll calls a function until it returns true or an error.
func poll(ctx context.Context, timeout time.Duration, condition string, check func() (bool, error)) error {
	return process.Until(ctx, condition, timeout, 50*time.Millisecond, check)
}
