package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// childAppends is the child of TestKill: it appends events and samples until it
// is killed and says what was acknowledged.
func childAppends(dir string) {
	s, err := Open(dir, Options{}, discard)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	t0 := time.Now()
	for i := 0; ; i++ {
		docs := []*signal.Document{noisy(2*i, t0), noisy(2*i+1, t0)}
		if err := s.AppendEvents(context.Background(), docs); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("event", docs[0].ID)
		fmt.Println("event", docs[1].ID)
		at := t0.Add(time.Duration(i) * time.Second)
		h := &signal.Hist{Counts: []uint64{uint64(i)}}
		if err := s.AppendSamples(context.Background(), at, []signal.Sample{gaugeOf(float64(i), "a"), {Schema: hist, Hist: h}}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("sample", at.UnixMilli(), i)
	}
}

// TestKill kills a process with SIGKILL while it appends, again and again on
// one directory, and looks for every event and sample that it acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for n := range 3 {
		acks := killChild(t, dir, time.Duration(100+150*n)*time.Millisecond)
		start := time.Now()
		s, err := Open(dir, Options{}, discard)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("opening took %v", d)
		}
		events := 0
		for _, a := range acks {
			var id string
			var ms int64
			var v int
			if _, err := fmt.Sscanf(a, "event %s", &id); err == nil {
				events++
				if _, err := s.Event(context.Background(), id); err != nil {
					t.Errorf("event %s: %v", id, err)
				}
			}
			if _, err := fmt.Sscanf(a, "sample %d %d", &ms, &v); err == nil && v%20 == 0 {
				expect(t, s, `huatuo_test_value`, time.UnixMilli(ms), map[string]string{`{__name__="huatuo_test_value", device="a"}`: fmt.Sprint(v)})
				expect(t, s, `histogram_count(huatuo_test_seconds)`, time.UnixMilli(ms), map[string]string{`{}`: fmt.Sprint(v)})
			}
		}
		if events == 0 {
			t.Errorf("nothing was acknowledged: %v", acks)
		}
		if st := s.Stats(); st.SetAside != 0 {
			t.Errorf("%d things were set aside", st.SetAside)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// killChild runs childAppends for d and returns the lines it wrote.
func killChild(t *testing.T, dir string, d time.Duration) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	sc := bufio.NewScanner(out)
	for first := true; sc.Scan(); first = false {
		if first {
			time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
		}
		if strings.HasPrefix(sc.Text(), "error") {
			t.Fatal(sc.Text())
		}
		lines = append(lines, sc.Text())
	}
	_ = cmd.Wait() // it was killed
	if n := len(lines); n > 0 {
		lines = lines[:n-1] // may be torn
	}
	return lines
}
