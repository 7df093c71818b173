package app

import (
	"context"
	"debug/elf"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/store/profiles"
	"huatuo/internal/symbol"
)

// TestKeptFramesGetNames: frames that were kept without a name, at two addresses
// of a function, are that function when its debug symbols have been installed.
func TestKeptFramesGetNames(t *testing.T) {
	const program = "../symbol/testdata/gcc5.elf"
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	note, err := f.Section(".note.gnu.build-id").Data()
	if err != nil {
		t.Fatal(err)
	}
	id := hex.EncodeToString(note[16:])
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var out uint64
	for _, s := range syms {
		if s.Name == "out" {
			out = s.Value
		}
	}
	root := t.TempDir()
	v := profileView{prof: &profiler{engine: &Engine{symbol: symbol.New(symbol.Options{Proc: filepath.Join(root, "proc")})}}}
	v.store, err = profiles.Open(profiles.Options{Dir: t.TempDir(), MaxBytes: 64 << 20, MaxAge: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); v.store.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	now := time.Now()
	for i := range uint64(2) {
		v.store.Add(signal.LabeledSample{StackSample: signal.StackSample{Type: profile.CPU, Time: now, Value: 10, Stack: &signal.Stack{
			Frames: []signal.Frame{{Function: symbol.Unknown, Module: "/bin/p", Offset: out + i, Missing: "no symbols in file", BuildID: id}},
		}}})
	}
	v.store.Flush()
	flame := func() []signal.FlameNode {
		t.Helper()
		g, err := v.Flame(t.Context(), signal.ProfileQuery{Type: "cpu", From: now.Add(-time.Minute), To: now.Add(time.Minute)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range g.Frames {
			t.Logf("%+v", x)
		}
		if len(g.Frames) == 1 && g.Frames[0] != (signal.Frame{Function: "out", Module: "/bin/p"}) {
			t.Errorf("it is %+v", g.Frames[0])
		}
		return g.Nodes
	}
	if n := flame(); len(n) != 2 {
		t.Fatalf("before: %+v", n)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(root, "usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := flame(); len(n) != 1 || n[0].Total != 20 {
		t.Errorf("after: %+v", n)
	}
}

func TestFetcherIsOff(t *testing.T) {
	cfg := config.Default(nil)
	if newFetcher(cfg) != nil {
		t.Error("without a server it is on")
	}
	cfg.Symbols.Debuginfod = []string{"http://127.0.0.1:1"}
	cfg.Store.Dir = t.TempDir()
	if newFetcher(cfg) == nil {
		t.Error("with a server it is off")
	}
}
