package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// The built console is in git: whoever has Go alone can build the agent.
//
//go:embed all:dist
var dist embed.FS

// asset is one file of the console.
type asset struct {
	contentType string
	etag        string
	plain       []byte
	gzipped     func() []byte // made when first asked for; nil where it does not pay
}

// assets serves the console. The files are found by name in a map: no path of
// a request ever reaches a file system.
type assets struct {
	files map[string]*asset // by URL path
	index *asset
}

func newAssets() (*assets, error) {
	root, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return readAssets(root)
}

func readAssets(root fs.FS) (*assets, error) {
	a := &assets{files: map[string]*asset{}}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		a.files["/"+name] = newAsset(name, data)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read console: %w", err)
	}
	if a.index = a.files["/index.html"]; a.index == nil {
		return nil, fmt.Errorf("read console: internal/console/dist has no index.html; build it with: make ui")
	}
	a.files["/"] = a.index
	return a, nil
}

func newAsset(name string, data []byte) *asset {
	sum := sha256.Sum256(data)
	a := &asset{
		contentType: contentType(name),
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`,
		plain:       data,
	}
	if strings.HasPrefix(a.contentType, "text/") || strings.Contains(a.contentType, "json") || strings.Contains(a.contentType, "svg") {
		a.gzipped = sync.OnceValue(func() []byte { return compress(data) })
	}
	return a
}

// contentType does not ask the machine's MIME table: it must not change what a
// browser is told about our own files.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".webmanifest":
		return "application/manifest+json"
	case ".woff2":
		return "font/woff2"
	case ".ico":
		return "image/x-icon"
	case ".map":
		return "application/json"
	case ".html", ".css", ".svg", ".png", ".json", ".txt":
		known := map[string]string{
			".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
			".png": "image/png", ".json": "application/json", ".txt": "text/plain; charset=utf-8",
		}
		return known[ext]
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

func compress(data []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("BUG: compress asset: " + err.Error())
	}
	return buf.Bytes()
}

// ServeHTTP serves a file, or index.html for a page of the console, whose
// routes the browser knows. What looks like a file and is none is not found.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, r.Method+" is not served here")
		return
	}
	f := a.files[r.URL.Path]
	if f == nil {
		if strings.Contains(path.Base(r.URL.Path), ".") {
			problem(w, http.StatusNotFound, "no such file")
			return
		}
		f = a.index
	}
	f.serve(w, r)
}

func (f *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache") // keep it, but ask: names are stable, content is not
	body, etag := f.plain, f.etag
	if f.gzipped != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body = f.gzipped()
		etag = strings.TrimSuffix(etag, `"`) + `-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Etag", etag)
	if strings.Contains(r.Header.Get("If-None-Match"), etag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		w.Write(body)
	}
}

// acceptsGzip reads an Accept-Encoding header.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(part, ";")
		if coding = strings.TrimSpace(coding); !strings.EqualFold(coding, "gzip") && coding != "*" {
			continue
		}
		_, q, found := strings.Cut(strings.ReplaceAll(params, " ", ""), "q=")
		v, err := strconv.ParseFloat(q, 64)
		return !found || (err == nil && v > 0)
	}
	return false
}
