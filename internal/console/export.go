package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"huatuo/internal/signal"
)

const ndjsonType = "application/x-ndjson"

// maxExport bounds the events of one file: some 30 MB.
const maxExport = 10_000

// exportPage is how many of them are in memory at a time.
const exportPage = 500

// exportEvents serves /api/v1/events/export: what the filters select, as a file.
func (s *Server) exportEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	format, limit := q.Get("format"), maxExport
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxExport {
			problem(w, http.StatusUnprocessableEntity, fmt.Sprintf("query.limit: %q is not in 1 to %d", clip(v), maxExport))
			return
		}
		limit = n
	}
	q.Del("format")
	q.Del("limit")
	f, err := filterOf(q)
	if err == nil && format != "" && format != "ndjson" && format != "json" {
		err = paramError("format", "%q is neither ndjson nor json", clip(format))
	}
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, detailOf(err))
		return
	}
	out := &fileWriter{w: w, list: format == "json"}
	f.Limit = min(exportPage, limit)
	for left := limit; ; {
		var page signal.EventPage
		err := s.read(r.Context(), func(ctx context.Context) (err error) {
			page, err = s.opt.Events.Events(ctx, f)
			return err
		})
		if err != nil {
			out.fail(err)
			return
		}
		for _, d := range page.Events {
			if out.document(d) != nil {
				return // the client has gone
			}
		}
		left -= len(page.Events)
		if page.Next == "" || left <= 0 {
			break
		}
		f.Before, f.Limit = page.Next, min(exportPage, left)
	}
	out.end()
}

// fileWriter writes documents, one a line, or as a JSON list.
type fileWriter struct {
	w    http.ResponseWriter
	list bool
	n    int
}

func (o *fileWriter) begin() {
	kind, name := ndjsonType, "ndjson"
	if o.list {
		kind, name = "application/json", "json"
	}
	attach(o.w, kind, "huatuo-events-"+time.Now().UTC().Format("20060102T150405Z")+"."+name)
	if o.list {
		o.w.Write([]byte("["))
	}
}

func (o *fileWriter) document(d *signal.Document) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", d.ID, err)
	}
	if o.n == 0 {
		o.begin()
	} else if o.list {
		b = append([]byte(","), b...)
	}
	o.n++
	_, err = o.w.Write(append(b, '\n'))
	return err
}

func (o *fileWriter) end() {
	if o.n == 0 {
		o.begin()
	}
	if o.list {
		o.w.Write([]byte("]\n"))
	}
}

// fail tells the client; when part of the file is on its way, by cutting the
// connection, so that nobody takes the part for the whole.
func (o *fileWriter) fail(err error) {
	if o.n > 0 {
		panic(http.ErrAbortHandler)
	}
	fail(o.w, err)
}

// fail writes an error that read has given a status.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var se huma.StatusError
	if errors.As(err, &se) {
		status = se.GetStatus()
	}
	problem(w, status, err.Error())
}

func detailOf(err error) string {
	var d *huma.ErrorDetail
	if errors.As(err, &d) {
		return d.Location + ": " + d.Message
	}
	return err.Error()
}

// attach makes the answer a file that browsers save.
func attach(w http.ResponseWriter, contentType, name string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
}

// exportEvent serves /api/v1/events/{id}/export.
func (s *Server) exportEvent(w http.ResponseWriter, r *http.Request) {
	in, err := exportOf(r)
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, detailOf(err))
		return
	}
	d, err := s.getEvent(r.Context(), &idParam{r.PathValue("id")})
	if err != nil {
		fail(w, err)
		return
	}
	name := d.Kind + "-" + d.ID
	if in.format == "json" {
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			fail(w, fmt.Errorf("encode event %s: %w", d.ID, err))
			return
		}
		attach(w, "application/json", name+".json")
		w.Write(append(b, '\n'))
		return
	}
	page, err := s.report(r.Context(), d, in)
	if err != nil {
		fail(w, err)
		return
	}
	attach(w, "text/html; charset=utf-8", name+".html")
	w.Write(page)
}

// exportIn is what an export was asked to be like.
type exportIn struct {
	format, lang string
	window       time.Duration
}

func exportOf(r *http.Request) (exportIn, error) {
	in := exportIn{format: "html", lang: "en", window: time.Minute}
	for name, values := range r.URL.Query() {
		v := values[0]
		choice := func(to *string, of ...string) error {
			if !slices.Contains(of, v) {
				return paramError(name, "%q is none of %v", clip(v), of)
			}
			*to = v
			return nil
		}
		var err error
		switch name {
		case "format":
			err = choice(&in.format, "html", "json")
		case "lang":
			err = choice(&in.lang, "en", "zh")
		case "window":
			n, aerr := strconv.Atoi(v)
			if aerr != nil || n < 1 || n > 3600 {
				err = paramError(name, "%q is not in 1 to 3600 seconds", clip(v))
			}
			in.window = time.Duration(n) * time.Second
		default:
			err = paramError(clip(name), "unknown parameter")
		}
		if err != nil {
			return in, err
		}
	}
	return in, nil
}
