package app

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/diagnose/known"
	"huatuo/internal/pipe"
	"huatuo/internal/probes"
	"huatuo/internal/signal"
)

// TestBuiltinKinds: what is built in names events that there are.
func TestBuiltinKinds(t *testing.T) {
	kinds := map[string]bool{}
	for _, s := range probes.All() {
		for _, e := range s.Emits {
			kinds[e.Name] = e.Kind == signal.Event
		}
	}
	for _, is := range known.Builtin() {
		for _, k := range is.Kinds {
			if !kinds[k] {
				t.Errorf("%s: there is no event %q", is.Name, k)
			}
		}
	}
}

// docs keeps what the pipe delivers.
type docs chan *signal.Document

func (d docs) Deliver(_ context.Context, all []*signal.Document) error {
	for _, doc := range all {
		d <- doc
	}
	return nil
}

// TestKnownThroughPipe: an event that is known is marked; one that is to be
// suppressed is dropped and counted, and a reload changes which.
func TestKnownThroughPipe(t *testing.T) {
	cfg := config.Default(probes.All())
	cfg.KnownIssues = []config.KnownIssue{
		{Name: "nfs_server", Action: known.Off},
		{Name: "noise", Title: "^noise", Action: known.Suppress},
	}
	e := &Engine{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := e.setKnown(cfg); err != nil {
		t.Fatal(err)
	}
	p := pipe.New(pipe.Options{Log: e.log, Known: e.lookKnown})
	got := make(docs, 10)
	p.Add("test", got)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx, time.Second); close(done) }()
	emit, _ := p.Probe("hungtask")
	schema := &signal.Schema{Name: "hung_task", Kind: signal.Event, Severity: signal.Warning}
	send := func(title, function string) {
		emit(&signal.Record{Schema: schema, Title: title, KernelStack: []signal.Frame{{Function: function}}})
	}
	next := func(title, knownAs string) {
		t.Helper()
		select {
		case d := <-got:
			if d.Title != title || strings.Join(d.Known, " ") != knownAs {
				t.Errorf("got %q known as %q, want %q as %q", d.Title, d.Known, title, knownAs)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s does not come", title)
		}
	}
	send("fuse", "request_wait_answer")
	send("noise of a night", "x")
	send("nfs", "rpc_wait_bit_killable")
	next("fuse", "fuse_server")
	next("nfs", "")
	cfg.KnownIssues = nil
	if err := e.setKnown(cfg); err != nil {
		t.Fatal(err)
	}
	send("noise again", "rpc_wait_bit_killable")
	next("noise again", "nfs_server")
	stop()
	<-done
	a := p.Accounts()[0]
	if a.Dropped["known_issue"] != 1 || a.Routed != 3 || !a.Balanced() {
		t.Errorf("account %+v", a)
	}
	cfg.KnownIssues = []config.KnownIssue{{Name: "bad", Title: "("}}
	if err := e.setKnown(cfg); err == nil || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("a bad expression: %v", err)
	}
}
