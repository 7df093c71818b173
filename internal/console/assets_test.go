package console

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func testAssets(t *testing.T) *assets {
	t.Helper()
	a, err := readAssets(fstest.MapFS{
		"index.html":     {Data: []byte("<!doctype html>" + strings.Repeat(" ", 2000))},
		"assets/app.js":  {Data: []byte(strings.Repeat("let a;", 500))},
		"assets/app.css": {Data: []byte("a{}")},
		"icon.png":       {Data: []byte("\x89PNG")},
		".hidden":        {Data: []byte("x")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAssets(t *testing.T) {
	a := testAssets(t)
	for _, c := range []struct {
		path        string
		status      int
		contentType string
	}{
		{"/", 200, "text/html; charset=utf-8"},
		{"/index.html", 200, "text/html; charset=utf-8"},
		{"/events", 200, "text/html; charset=utf-8"}, // a page of the console
		{"/events/01JGXAMPLE", 200, "text/html; charset=utf-8"},
		{"/assets", 200, "text/html; charset=utf-8"}, // no listing of the folder
		{"/assets/app.js", 200, "text/javascript; charset=utf-8"},
		{"/assets/app.css", 200, "text/css; charset=utf-8"},
		{"/icon.png", 200, "image/png"},
		{"/assets/gone.js", 404, "application/problem+json"},
		{"/../agent.go", 404, "application/problem+json"},
		{"/assets/../../agent.go", 404, "application/problem+json"},
		{"/%2e%2e/agent.go", 404, "application/problem+json"},
	} {
		for _, encoding := range []string{"", "gzip", "br, gzip;q=0.5", "gzip;q=0", "*", "br"} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL.Path = c.path
			r.Header.Set("Accept-Encoding", encoding)
			rec := httptest.NewRecorder()
			a.ServeHTTP(rec, r)
			if rec.Code != c.status || rec.Header().Get("Content-Type") != c.contentType {
				t.Errorf("%s: %d %s", c.path, rec.Code, rec.Header().Get("Content-Type"))
			}
			zipped := rec.Header().Get("Content-Encoding") == "gzip"
			if want := c.status == 200 && (encoding == "gzip" || strings.Contains(encoding, "0.5") || encoding == "*") && !strings.HasSuffix(c.path, ".png"); zipped != want {
				t.Errorf("%s for %q: compressed %t", c.path, encoding, zipped)
			}
			if !zipped || c.path != "/assets/app.js" {
				continue
			}
			zr, err := gzip.NewReader(rec.Body)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(zr); err != nil || string(b) != strings.Repeat("let a;", 500) {
				t.Errorf("decompressed: %v %q", err, b)
			}
		}
	}
}

func TestAssetCaching(t *testing.T) {
	a := testAssets(t)
	get := func(encoding, etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/assets/app.js", nil)
		r.Header.Set("Accept-Encoding", encoding)
		r.Header.Set("If-None-Match", etag)
		rec := httptest.NewRecorder()
		a.ServeHTTP(rec, r)
		return rec
	}
	plain, zipped := get("", "").Header().Get("Etag"), get("gzip", "").Header().Get("Etag")
	if plain == "" || plain == zipped {
		t.Fatalf("tags %q and %q", plain, zipped)
	}
	if cc := get("", "").Header().Get("Cache-Control"); cc != "no-cache" {
		t.Errorf("Cache-Control %q", cc)
	}
	for _, c := range []struct {
		encoding, etag string
		want           int
	}{
		{"", plain, 304}, {"gzip", zipped, 304}, {"gzip", "W/" + zipped, 304}, {"gzip", `"x", ` + zipped, 304},
		{"gzip", plain, 200}, {"", zipped, 200}, {"", `"x"`, 200},
	} {
		rec := get(c.encoding, c.etag)
		if rec.Code != c.want || (c.want == 304 && rec.Body.Len() > 0) {
			t.Errorf("%q with %s: %d, %d bytes", c.encoding, c.etag, rec.Code, rec.Body.Len())
		}
	}
	r := httptest.NewRequest(http.MethodHead, "/", nil)
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, r)
	if rec.Code != 200 || rec.Body.Len() > 0 || rec.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: %d, %d bytes, %v", rec.Code, rec.Body.Len(), rec.Header())
	}
}

func TestMissingIndex(t *testing.T) {
	if _, err := readAssets(fstest.MapFS{"app.js": {}}); err == nil || !strings.Contains(err.Error(), "make ui") {
		t.Errorf("no index.html: %v", err)
	}
}

// TestEmbedded checks that what is embedded obeys the content policy: an inline
// script or a foreign address would break the page in the browser only.
func TestEmbedded(t *testing.T) {
	a, err := newAssets()
	if err != nil {
		t.Fatal(err)
	}
	html := string(a.index.plain)
	for _, bad := range []string{"<script>", "<style>", "javascript:", "onclick=", "onload=", "src=\"http", "href=\"http", "src=\"//"} {
		if strings.Contains(html, bad) {
			t.Errorf("index.html has %s, which the content policy blocks", bad)
		}
	}
}
