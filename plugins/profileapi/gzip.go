package profileapi

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// worthGzip is the minimum length of a body to compress. A profile fits into one or
// two packets, and compressing it would take longer than the rest of the request.
const worthGzip = 8 << 10

// writers pools gzip writers, each of which takes most of a megabyte.
var writers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // only for an invalid level
	}
	return w
}}

func appendGzip(dst, body []byte) []byte {
	out := bytes.NewBuffer(dst)
	w := writers.Get().(*gzip.Writer)
	defer writers.Put(w)
	w.Reset(out)
	// Writing to a buffer does not fail.
	_, _ = w.Write(body)
	_ = w.Close()
	return out.Bytes()
}

// gzipIfAccepted returns a writer for a body of unknown length, and a function to call
// at its end.
func gzipIfAccepted(w http.ResponseWriter, r *http.Request) (out io.Writer, finish func()) {
	if !acceptsGzip(r.Header["Accept-Encoding"]) {
		return w, func() {}
	}
	w.Header()["Content-Encoding"] = valueGzip
	packer := writers.Get().(*gzip.Writer)
	packer.Reset(w)
	return packer, func() {
		// An error means that the client closed the connection.
		_ = packer.Close()
		writers.Put(packer)
	}
}

// acceptsGzip reports whether Accept-Encoding headers contain gzip or *, with a weight
// other than zero.
func acceptsGzip(values []string) bool {
	accepts, named := false, false
	for _, line := range values {
		for item := range strings.SplitSeq(line, ",") {
			coding, params, _ := strings.Cut(item, ";")
			coding = strings.ToLower(strings.TrimSpace(coding))
			if coding != "gzip" && (coding != "*" || named) {
				continue
			}
			named = coding == "gzip"
			name, value, _ := strings.Cut(strings.TrimSpace(params), "=")
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			accepts = !strings.EqualFold(strings.TrimSpace(name), "q") || err == nil && q > 0
		}
	}
	return accepts
}
