package faults

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// sender sends events to the collector one by one, and retries each until it is
// accepted, as an SDK does.
type sender struct {
	address  string
	accepted atomic.Int64
	resent   atomic.Int64
}

const writeKey = "faults"

// send returns when all events are accepted.
func (s *sender) send(ctx context.Context, events [][]byte) error {
	client := &http.Client{Timeout: 20 * time.Second}
	for _, e := range events {
		body := append(append([]byte(`{"batch":[`), e...), `]}`...)
		for try := 0; ; try++ {
			status, err := s.post(ctx, client, body)
			if err == nil && status == http.StatusOK {
				s.accepted.Add(1)
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// Only an unreachable or overloaded collector may be retried.
			if err == nil && status != http.StatusServiceUnavailable {
				return fmt.Errorf("the collector answered %d to a valid event", status)
			}
			if try > 1000 {
				return fmt.Errorf("the collector did not accept an event in %d tries: status %d, %v", try, status, err)
			}
			s.resent.Add(1)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

func (s *sender) post(ctx context.Context, client *http.Client, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/v1/batch", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.SetBasicAuth(writeKey, "")
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
