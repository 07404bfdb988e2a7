package faults

import (
	"context"
	"path/filepath"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// plant makes processes and ends those that are left.
type plant struct {
	binary string
	dir    string // for logs
	env    []string
	all    []*process.Process
}

func (p *plant) process(name, config string, env ...string) (*process.Process, error) {
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

func (p *plant) stop() {
	for _, proc := range p.all {
		proc.Kill()
	}
}

// poll asks until the answer is yes, and ends at an error.
func poll(ctx context.Context, timeout time.Duration, what string, ask func() (bool, error)) error {
	return process.Until(ctx, what, timeout, 50*time.Millisecond, ask)
}
