package compare

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profile takes a CPU profile of a running pipeline, and then
// its allocations so far.
func (b *bench) profile(ctx context.Context, name, address string) {
	select {
	case <-time.After(time.Second / 4):
	case <-ctx.Done():
		return
	}
	for _, kind := range [][2]string{{"cpu", fmt.Sprintf("profile?seconds=%d", b.profileSeconds)}, {"allocs", "allocs"}} {
		path := filepath.Join(b.profiles, name+"."+kind[0]+".pprof")
		if err := fetch(ctx, "http://"+address+"/debug/pprof/"+kind[1], path); err != nil {
			b.say("no %s profile of %s: %v", kind[0], name, err)
		}
	}
}

func fetch(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answers %s", response.Status)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
