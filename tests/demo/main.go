//go:build unix

// Command demo runs the quickstart for a first look: it starts the distribution,
// waits until a customer of the synthetic shop has a profile, and prints the running
// services and commands to try. Interrupt it to end it.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// The addresses of configs/quickstart.yaml, and the variables that change them.
var (
	collector = endpoint{"COLLECTOR_ADDRESS", "127.0.0.1:8080"}
	api       = endpoint{"PROFILE_API_ADDRESS", "127.0.0.1:8081"}
	metrics   = endpoint{"HTTP_ADDRESS", "127.0.0.1:4195"}
)

type endpoint struct{ variable, preset string }

func (e endpoint) address() string { return cmp.Or(os.Getenv(e.variable), e.preset) }
func (e endpoint) String() string  { return "http://" + e.address() }

// free returns an error if another process listens on the address, as the demo would
// show that process.
func (e endpoint) free() error {
	listener, err := net.Listen("tcp", e.address())
	if err != nil {
		return fmt.Errorf("%s is taken: end what listens there, or set %s to another address (%w)", e.address(), e.variable, err)
	}
	return listener.Close()
}

func main() {
	binary := flag.String("binary", "bin/connect-personalize", "program to run")
	config := flag.String("config", "configs/quickstart.yaml", "pipeline to run")
	data := flag.String("data", "data/demo", "folder for profiles, dead letters and the log")
	patience := flag.Duration("patience", time.Minute, "maximum time until a profile can be read")
	flag.Parse()
	if err := run(*binary, *config, *data, *patience); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(binary, config, data string, patience time.Duration) error {
	for _, e := range []endpoint{collector, api, metrics} {
		if err := e.free(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	logPath := filepath.Join(data, "connect-personalize.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()

	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)

	server := exec.Command(binary, "-c", config)
	server.Env = append(os.Environ(), "PROFILE_DIR="+filepath.Join(data, "profiles"), "DATA_DIR="+data)
	server.Stdout, server.Stderr = log, log
	// A process group of its own: it must receive one interrupt, from here. A second
	// interrupt, from the terminal, would end it without a clean shutdown.
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop := func() error {
		_ = server.Process.Signal(syscall.SIGTERM)
		return <-ended
	}

	fmt.Println("Starting ...")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	type found struct {
		id  string
		err error
	}
	ready := make(chan found, 1)
	go func() {
		id, err := findCustomer(ctx)
		ready <- found{id, err}
	}()

	select {
	case customer := <-ready:
		if customer.err != nil {
			_ = stop()
			return fmt.Errorf("%w; its log is in %s", customer.err, logPath)
		}
		explain(config, data, customer.id)
	case err := <-ended:
		return unexpected(err, logPath)
	case <-interrupts:
		return stop()
	}

	select {
	case err := <-ended:
		return unexpected(err, logPath)
	case <-interrupts:
		fmt.Println("\nStopping: what was accepted is stored first.")
		if err := stop(); err != nil {
			return fmt.Errorf("it did not end cleanly: %w; its log is in %s", err, logPath)
		}
		fmt.Printf("Stopped. Profiles and dead letters are in %s; `make clean` removes them.\n", data)
		return nil
	}
}

// unexpected returns an error with the end of the log of a program that ended by
// itself.
func unexpected(err error, logPath string) error {
	const maxBytes = 1000
	text, readErr := os.ReadFile(logPath)
	if readErr != nil {
		return readErr
	}
	return fmt.Errorf("connect-personalize ended (%v). The end of its log, %s:\n%s", err, logPath, text[max(0, len(text)-maxBytes):])
}

// findCustomer waits until one of the shop's most active customers has a
// profile with an order.
func findCustomer(ctx context.Context) (string, error) {
	var ids []string
	for i := 1; i <= 100; i++ {
		ids = append(ids, fmt.Sprintf("u-%06d", i))
	}
	request, err := json.Marshal(map[string]any{"ids": ids})
	if err != nil {
		return "", err
	}
	last := fmt.Errorf("no response from %s", api)
	for {
		if id, err := readBatch(ctx, request); err == nil {
			return id, nil
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return "", last
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func readBatch(ctx context.Context, request []byte) (string, error) {
	if _, err := fetch(ctx, http.MethodGet, api.String()+"/readyz", nil); err != nil {
		return "", err
	}
	answer, err := fetch(ctx, http.MethodPost, api.String()+"/api/customers/batch", request)
	if err != nil {
		return "", err
	}
	var customers struct {
		Customers []struct {
			ID      string
			Profile struct{ Features map[string]any }
		}
	}
	if err := json.Unmarshal(answer, &customers); err != nil {
		return "", err
	}
	for _, c := range customers.Customers {
		if orders, ok := c.Profile.Features["orders_30d"].(float64); ok && orders > 0 {
			return c.ID, nil
		}
	}
	return "", errors.New("no customer of the shop has ordered yet")
}

func fetch(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: status %s", method, url, response.Status)
	}
	return answer, nil
}

func explain(config, data, customer string) {
	fmt.Printf(`Running %[1]s: a synthetic shop's events become profiles.

  event collector  %[2]s   (write key: demo)
  profile API      %[3]s
  metrics          %[4]s/metrics
  data             %[5]s: profiles, changes, dead letters, log

Read a customer's profile, send an event of theirs, and read it again:

  curl %[3]s/api/customer/%[6]s
  curl -u demo: %[2]s/v1/track -H 'Content-Type: application/json' \
    -d '{"userId":"%[6]s","event":"Product Viewed","properties":{"product_id":"p-1","name":"Hat","category":"hats","price":19.9}}'

See segment changes and fired triggers:

  tail -f %[5]s/changes.jsonl

Ctrl-C ends it.
`, config, collector, api, metrics, data, customer)
}
