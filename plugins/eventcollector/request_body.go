package eventcollector

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// failure is an answer other than success.
type failure struct {
	status        int
	code, message string
}

var (
	failSlow = &failure{http.StatusRequestTimeout, "slow_body", "the body did not arrive in time: send it again, or in smaller batches"}
	failCut  = &failure{http.StatusBadRequest, "truncated_body", "the connection delivered less of the body than was announced"}
	failGzip = &failure{http.StatusBadRequest, "invalid_gzip", "the body is not the gzip data that its Content-Encoding says it is"}
	failBusy = &failure{http.StatusServiceUnavailable, "busy", "too many requests are waiting: send the events again later"}
)

func tooLarge(limit int) *failure {
	return &failure{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body has more than the %d bytes that this endpoint accepts: send fewer or smaller events at a time", limit)}
}

// acceptsType tells whether a body of this content type is read. All of them
// are read as JSON: the types are those that SDKs, browsers and curl put on it.
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

// acceptsEncoding tells whether a body with this content encoding is read, and
// whether it is gzip.
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

// body is the body of a request, in a buffer that is used again once it is
// released.
type body struct {
	bytes    []byte
	buffer   *[]byte
	buffered *budget
}

func (b *body) release() {
	b.buffered.free(len(b.bytes))
	*b.buffer = b.bytes[:0]
	bodyBuffers.Put(b.buffer)
}

// readBody reads at most limit bytes, decompressed. Memory is taken as bytes
// arrive, not as the request announces them.
func (c *collector) readBody(r *http.Request, gzipped bool, limit int) (*body, *failure) {
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	b := &body{buffer: bodyBuffers.Get().(*[]byte), buffered: &c.buffered}
	b.bytes = (*b.buffer)[:0]
	if fail := c.fill(b, r, gzipped, limit); fail != nil {
		b.release()
		return nil, fail
	}
	return b, nil
}

func (c *collector) fill(b *body, r *http.Request, gzipped bool, limit int) *failure {
	wire := &wireReader{from: r.Body, left: limit}
	var from io.Reader = wire
	if gzipped {
		zip, _ := gzipReaders.Get().(*gzip.Reader)
		if zip == nil {
			zip = new(gzip.Reader)
		}
		defer gzipReaders.Put(zip)
		if err := zip.Reset(wire); err != nil {
			return wire.failure(err, limit)
		}
		from = zip
	}
	for {
		if len(b.bytes) == cap(b.bytes) {
			b.bytes = append(make([]byte, 0, min(max(4<<10, 2*cap(b.bytes)), limit+1)), b.bytes...)
		}
		// One byte more than the limit tells that there is more.
		n, err := from.Read(b.bytes[len(b.bytes):min(cap(b.bytes), limit+1)])
		if !c.buffered.take(n) {
			return failBusy
		}
		b.bytes = b.bytes[:len(b.bytes)+n]
		if len(b.bytes) > limit {
			return tooLarge(limit)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return wire.failure(err, limit)
		}
	}
}

var errTooLarge = errors.New("too large")

// wireReader reads what arrives on the wire, up to a limit, and remembers its
// own errors to tell them from those of decompression.
type wireReader struct {
	from io.Reader
	left int
	err  error
}

func (w *wireReader) Read(p []byte) (int, error) {
	// A byte beyond the limit must be seen to be refused.
	n, err := w.from.Read(p[:min(len(p), w.left+1)])
	if n > w.left {
		n, err = w.left, errTooLarge
	}
	w.left -= n
	if err != nil {
		w.err = err
	}
	return n, err
}

// failure says what went wrong when reading ended with err.
func (w *wireReader) failure(err error, limit int) *failure {
	switch {
	case errors.Is(w.err, errTooLarge):
		return tooLarge(limit)
	case errors.Is(w.err, os.ErrDeadlineExceeded):
		return failSlow
	case w.err != nil && w.err != io.EOF:
		return failCut
	case err != nil:
		return failGzip
	}
	return nil
}
