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

// worthGzip is the length from which a body is compressed for who accepts it. A
// profile fits into a packet or two, and packing it would take longer than
// everything else about it.
const worthGzip = 8 << 10

// packers hold what packs: a good part of a megabyte each.
var packers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one
	}
	return w
}}

func appendGzip(dst, body []byte) []byte {
	out := bytes.NewBuffer(dst)
	w := packers.Get().(*gzip.Writer)
	defer packers.Put(w)
	w.Reset(out)
	// A buffer takes everything.
	_, _ = w.Write(body)
	_ = w.Close()
	return out.Bytes()
}

// gzipIfAccepted returns where to write a body of unknown length, and what to
// call at its end.
func gzipIfAccepted(w http.ResponseWriter, r *http.Request) (out io.Writer, finish func()) {
	if !acceptsGzip(r.Header["Accept-Encoding"]) {
		return w, func() {}
	}
	w.Header()["Content-Encoding"] = valueGzip
	packer := packers.Get().(*gzip.Writer)
	packer.Reset(w)
	return packer, func() {
		// An error here is a client that went away.
		_ = packer.Close()
		packers.Put(packer)
	}
}

// acceptsGzip tells whether Accept-Encoding headers name gzip, or anything, with
// a weight other than zero.
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
