package profileapioutput

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/connect-personalize/connect-personalize/plugins/engine/delivery"
)

// maxResponseBytes bounds the body of a response.
const maxResponseBytes = 4 << 20

// newTransport returns a delivery.Transport that sends requests with net/http.
func newTransport(inner http.RoundTripper) delivery.Transport {
	client := &http.Client{
		Transport: inner,
		// Following a redirect would send the credentials to another address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, r *delivery.Request) (*delivery.Response, error) {
		request, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(r.Body))
		if err != nil {
			return nil, errors.New("url and verb are not valid in an HTTP request")
		}
		request.Header = http.Header(r.Header)
		response, err := client.Do(request)
		if err != nil {
			return nil, redact(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes+1))
		if err != nil {
			return nil, redact(err)
		}
		if len(body) > maxResponseBytes {
			return nil, errors.New("the response is too long")
		}
		return &delivery.Response{Status: response.StatusCode, Header: delivery.Header(response.Header), Body: body}, nil
	}
}

// redact returns an error that states the cause and contains neither the address,
// which may hold a token, nor a part of the response.
func redact(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no response in time")
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before the end of the response")
	}
	if cause, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cause
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New("the host name cannot be resolved")
	}
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		return cause
	}
	return errors.New("the connection broke, or the response is not HTTP")
}
