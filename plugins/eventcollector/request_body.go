package eventcollector

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// failure is a response other than success.
type failure struct {
	status        int
	code, message string
	retryAfter    time.Duration // of a 429; a 503 has that of the config
}

var (
	failSlow = &failure{status: http.StatusRequestTimeout, code: "slow_body", message: "the body did not arrive in time: send it again, or in smaller batches"}
	failCut  = &failure{status: http.StatusBadRequest, code: "truncated_body", message: "the connection ended before the end of the body"}
	failGzip = &failure{status: http.StatusBadRequest, code: "invalid_gzip", message: "the body is not valid gzip, although its Content-Encoding is gzip"}
	failBusy = &failure{status: http.StatusServiceUnavailable, code: "busy", message: "too many requests are waiting: send the events again later"}
)

func tooLarge(limit int) *failure {
	return &failure{status: http.StatusRequestEntityTooLarge, code: "body_too_large", message: fmt.Sprintf("the body exceeds the %d bytes that this endpoint accepts: send fewer or smaller events at a time", limit)}
}

// acceptsType reports whether bodies of this content type are accepted. All are
// parsed as JSON: these are the types that SDKs, browsers and curl use for it.
func acceptsType(contentType string) bool {
	switch contentType {
	case "", "application/json", "application/json; charset=utf-8", "text/plain;charset=UTF-8":
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false
	}
	switch media {
	case "application/json", "text/plain", "application/x-www-form-urlencoded":
		return true
	}
	return false
}

// acceptsEncoding reports whether bodies with this content encoding are accepted,
// and whether it is gzip.
func acceptsEncoding(encoding string) (gzipped, ok bool) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return false, true
	case "gzip", "x-gzip":
		return true, true
	}
	return false, false
}

var (
	bodyBuffers = sync.Pool{New: func() any { return new([]byte) }}
	gzipReaders sync.Pool
)

// body is the body of a request, in a buffer that is reused after release.
type body struct {
	bytes    []byte
	buffer   *[]byte
	reserved *reservation
}

func newBody(r *reservation) *body {
	b := &body{buffer: bodyBuffers.Get().(*[]byte), reserved: r}
	b.bytes = (*b.buffer)[:0]
	return b
}

func (b *body) release() {
	b.reserved.free()
	*b.buffer = b.bytes[:0]
	bodyBuffers.Put(b.buffer)
}

var (
	errTooLarge = errors.New("too large")
	errNoMemory = errors.New("no memory")
)

// fill reads at most limit bytes. It reserves memory as bytes arrive, not by the
// announced length.
func (b *body) fill(from io.Reader, limit int) error {
	for {
		if len(b.bytes) == cap(b.bytes) {
			b.bytes = append(make([]byte, 0, min(max(4<<10, 2*cap(b.bytes)), limit+1)), b.bytes...)
		}
		// One byte above the limit shows that the body is too large.
		n, err := from.Read(b.bytes[len(b.bytes):min(cap(b.bytes), limit+1)])
		if !b.reserved.take(n) {
			return errNoMemory
		}
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case len(b.bytes) > limit:
			return errTooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// receiveBody reads the body of a request as it is sent, compressed or not. A slow
// client therefore holds only memory for bytes that it has sent.
func (c *collector) receiveBody(r *http.Request, from account, conn *http.ResponseController, limit int) (*body, *failure) {
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	b := newBody(c.memory.reserve(from, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }))
	err := b.fill(r.Body, limit)
	if complete := b.reserved.complete(); err == nil && complete {
		return b, nil
	}
	b.release()
	switch {
	case err == nil, errors.Is(err, errNoMemory), b.reserved.wasEvicted():
		return nil, failBusy
	case errors.Is(err, errTooLarge):
		return nil, tooLarge(limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, failSlow
	}
	return nil, failCut
}

// decompress replaces a gzip body by its content.
func (c *collector) decompress(zipped *body, from account, limit int) (*body, *failure) {
	defer zipped.release()
	zip, _ := gzipReaders.Get().(*gzip.Reader)
	if zip == nil {
		zip = new(gzip.Reader)
	}
	defer gzipReaders.Put(zip)
	if err := zip.Reset(bytes.NewReader(zipped.bytes)); err != nil {
		return nil, failGzip
	}
	r := c.memory.reserve(from, nil)
	r.complete()
	b := newBody(r)
	err := b.fill(zip, limit)
	if err == nil {
		return b, nil
	}
	b.release()
	switch {
	case errors.Is(err, errNoMemory):
		return nil, failBusy
	case errors.Is(err, errTooLarge):
		return nil, tooLarge(limit)
	}
	return nil, failGzip
}
