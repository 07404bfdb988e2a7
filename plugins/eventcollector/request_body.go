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

// failure is a response other than success.
type failure struct {
	status        int
	code, message string
}

var (
	failSlow = &failure{http.StatusRequestTimeout, "slow_body", "the body did not arrive in time: send it again, or in smaller batches"}
	failCut  = &failure{http.StatusBadRequest, "truncated_body", "the connection ended before the end of the body"}
	failGzip = &failure{http.StatusBadRequest, "invalid_gzip", "the body is not valid gzip, although its Content-Encoding is gzip"}
	failBusy = &failure{http.StatusServiceUnavailable, "busy", "too many requests are waiting: send the events again later"}
)

func tooLarge(limit int) *failure {
	return &failure{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body exceeds the %d bytes that this endpoint accepts: send fewer or smaller events at a time", limit)}
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
	buffered *budget
}

func (b *body) release() {
	b.buffered.free(len(b.bytes))
	*b.buffer = b.bytes[:0]
	bodyBuffers.Put(b.buffer)
}

// readBody reads at most limit bytes after decompression. It reserves memory as
// bytes arrive, not by the announced length.
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
		// One byte above the limit shows that the body is too large.
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

// wireReader reads from the connection up to a limit. It keeps its own errors, to
// distinguish them from errors of decompression.
type wireReader struct {
	from io.Reader
	left int
	err  error
}

func (w *wireReader) Read(p []byte) (int, error) {
	// Read one byte above the limit, to detect that there is more.
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

// failure returns the response for a body that ended with err.
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
