package profileapi

import (
	"embed"
	"net/http"
)

// The explorer is a web page with files embedded in the binary. It contains no
// data: it requests them from the API, with the token that the user enters if the API
// requires one.
//
//go:embed explorer/index.html explorer/explorer.js explorer/explorer.css explorer/explorer.svg
var explorerFiles embed.FS

// explorerPolicy allows the page its own files and its own API, but no inline scripts
// or styles, no other hosts, and no embedding in a frame.
const explorerPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func explorerRoutes() []route {
	file := func(pattern, name, contentType string) route {
		text, err := explorerFiles.ReadFile("explorer/" + name)
		if err != nil {
			panic(err)
		}
		value, tag := []string{contentType}, contentTag(text)
		return route{
			method: http.MethodGet, pattern: pattern, page: "explorer",
			serve: func(h *handler, w http.ResponseWriter, r *http.Request, _ visit) int {
				if !h.conf.explorer {
					return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_such_page",
						message: "there is no resource at this path; in a customer id, write a slash as %2F"})
				}
				header := w.Header()
				header.Set("Content-Security-Policy", explorerPolicy)
				header.Set("Referrer-Policy", "no-referrer")
				header.Set("X-Frame-Options", "DENY")
				header.Set("Cross-Origin-Opener-Policy", "same-origin")
				header.Set("Cross-Origin-Resource-Policy", "same-origin")
				header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
				header["Cache-Control"] = valueNoCache
				header["Etag"] = []string{tag}
				if known := r.Header["If-None-Match"]; len(known) > 0 && matchesTag(known, tag) {
					w.WriteHeader(http.StatusNotModified)
					return http.StatusNotModified
				}
				return send(w, r, http.StatusOK, value, text)
			},
		}
	}
	return []route{
		file("/", "index.html", "text/html; charset=utf-8"),
		file("/explorer.js", "explorer.js", "text/javascript; charset=utf-8"),
		file("/explorer.css", "explorer.css", "text/css; charset=utf-8"),
		file("/explorer.svg", "explorer.svg", "image/svg+xml"),
	}
}

var valueNoCache = []string{"no-cache"}
