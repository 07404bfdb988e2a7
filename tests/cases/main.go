// Command cases runs small inputs that once gave a wrong result, against the built
// program, and prints the result of each. Add a case to table.go. Run it as
// `make check SUITE=cases`.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// long is longer than any id that the profile API accepts.
var long = strings.Repeat("L", 513)

func main() {
	dir, err := os.MkdirTemp("", "cases-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		var failed int
		if failed, err = run(context.Background(), dir); err == nil && failed > 0 {
			err = fmt.Errorf("%d cases failed", failed)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cases:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) (failed int, err error) {
	binary, err := process.Build(ctx, dir)
	if err != nil {
		return 0, err
	}
	total := 0
	show := func(name, difference string) {
		total++
		if difference == "" {
			fmt.Printf("ok    %s\n", name)
			return
		}
		failed++
		fmt.Printf("FAIL  %s: %s\n", name, difference)
	}
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.process.Kill()
		}
	}()
	for _, c := range servedCases {
		if c.config == "" {
			c.config = inputs + "server.yaml"
		}
		if servers[c.config] == nil {
			s, err := start(ctx, binary, c.config, filepath.Join(dir, fmt.Sprint("server-", len(servers))))
			if err != nil {
				return failed, err
			}
			servers[c.config] = s
		}
		show(c.name, servers[c.config].check(&c))
	}
	for i, c := range commandCases {
		show(c.name, c.check(ctx, binary, filepath.Join(dir, fmt.Sprint("command-", i))))
	}
	fmt.Printf("%d of %d cases are right\n", total-failed, total)
	return failed, nil
}

// server is a running pipeline with a collector and a profile API.
type server struct {
	process        *process.Process
	collector, api string
}

func start(ctx context.Context, binary, config, dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var addresses [3]string
	for i := range addresses {
		var err error
		if addresses[i], err = process.FreeAddress(); err != nil {
			return nil, err
		}
	}
	s := &server{collector: "http://" + addresses[0], api: "http://" + addresses[1]}
	s.process = &process.Process{
		Name: config, Binary: binary, Config: config, HTTP: addresses[2], Log: filepath.Join(dir, "log"),
		Env: []string{
			"COLLECTOR_ADDRESS=" + addresses[0], "PROFILE_API_ADDRESS=" + addresses[1], "HTTP_ADDRESS=" + addresses[2],
			"DATA_DIR=" + dir, "PROFILE_DIR=" + filepath.Join(dir, "profiles"), "SHOP_RATE=1",
		},
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	return s, s.process.Serves(ctx, s.api+"/readyz")
}

// check returns the difference between the expected and the actual result, empty
// if there is none.
func (s *server) check(c *served) string {
	var answer []byte
	for _, p := range c.posts {
		if p.path == "pause" {
			time.Sleep(2 * time.Second) // the case needs different times of arrival
			continue
		}
		status, body, err := request(http.MethodPost, s.collector+"/v1/"+p.path, p.body)
		if err != nil {
			return err.Error()
		}
		if status != http.StatusOK {
			return fmt.Sprintf("the collector returned %d: %.200s", status, body)
		}
		answer = body
	}
	if !strings.Contains(string(answer), c.answer) {
		return fmt.Sprintf("the collector returned %.200s without %s", answer, c.answer)
	}
	if c.get == "" {
		return ""
	}
	status, body, err := request(http.MethodGet, s.api+c.get, "")
	if err != nil {
		return err.Error()
	}
	if status != http.StatusOK {
		return fmt.Sprintf("the API returned %d: %.200s", status, body)
	}
	if !json.Valid(body) {
		return fmt.Sprintf("the response is not JSON: %.300s", body)
	}
	value := json.RawMessage(body)
	for name := range strings.SplitSeq(c.value, ".") {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(value, &members); err != nil {
			return err.Error()
		}
		value = members[name]
	}
	if string(value) != c.want {
		return fmt.Sprintf("%s is %s, not %s", c.value, value, c.want)
	}
	return ""
}

func request(method, url, body string) (int, []byte, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth("demo", "")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

func (c *command) check(ctx context.Context, binary, dir string) string {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, c.args...)
	cmd.Env = append(os.Environ(), "DATA_DIR="+dir, c.env)
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != c.code {
		return fmt.Sprintf("exit code %d, not %d: %.300s", code, c.code, out.Bytes())
	}
	text := out.String()
	if c.file != "" {
		content, err := os.ReadFile(filepath.Join(dir, c.file))
		if err != nil {
			return err.Error()
		}
		text = string(content)
	}
	for _, want := range c.wants {
		if !strings.Contains(text, want) {
			return fmt.Sprintf("the output lacks %q: %.300s", want, text)
		}
	}
	for _, lack := range c.lacks {
		if strings.Contains(text, lack) {
			return fmt.Sprintf("the output contains %q: %.300s", lack, text)
		}
	}
	return ""
}
