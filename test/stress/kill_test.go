package stress

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// acks are the events that the agent has told somebody about, with the time.
type acks struct {
	mu       sync.Mutex
	streamed map[string]time.Time // by the stream
	kept     map[string]time.Time // by GET, which reads the store
}

// collect notes what a tells until it is killed.
func (k *acks) collect(a *agent, ended *sync.WaitGroup) {
	ended.Go(func() {
		s, err := a.follow(a.t.Context(), "")
		if err != nil {
			a.t.Errorf("follow: %v", err)
			return
		}
		defer s.close()
		for {
			m, ok := s.next()
			if !ok {
				return
			}
			if m.event == "event" {
				k.note(k.streamed, m.id)
			}
		}
	})
	ended.Go(func() {
		for {
			select {
			case <-a.exited:
				return
			case <-time.After(100 * time.Millisecond):
			}
			code, body := a.get("/api/v1/events?limit=200")
			var page signal.EventPage
			if code != 200 || json.Unmarshal([]byte(body), &page) != nil {
				continue // it was killed meanwhile
			}
			for _, d := range page.Events {
				k.note(k.kept, d.ID)
			}
		}
	})
}

func (k *acks) note(in map[string]time.Time, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := in[id]; !ok {
		in[id] = time.Now()
	}
}

// TestKill kills the agent again and again while events flow. What GET has
// shown must be there for good; of what the stream has shown, the last second
// before a kill may be missing. The agent must be ready within two seconds, and
// nothing may be set aside.
func TestKill(t *testing.T) {
	needRoot(t)
	rounds := pick(5, 20)
	data := t.TempDir()
	k := &acks{streamed: map[string]time.Time{}, kept: map[string]time.Time{}}
	stop := drops(t, 300)
	var starts []time.Duration
	var kills []time.Time
	worst := 1.0
	for range rounds {
		slow := slowness()
		worst = max(worst, slow)
		a := launch(t, data, nil, append(unlimited, "--set", "store.interval=1s")...)
		took := a.ready(30 * time.Second)
		starts = append(starts, took)
		if limit := time.Duration(2 * slow * float64(time.Second)); took > limit {
			t.Errorf("ready after %v; the bound is %v on this machine now", took, limit)
		}
		var ended sync.WaitGroup
		k.collect(a, &ended)
		time.Sleep(time.Second + time.Duration(rand.IntN(1500))*time.Millisecond)
		kills = append(kills, time.Now())
		a.kill()
		ended.Wait()
	}
	sent := stop()

	a := start(t, data, nil)
	have := map[string]bool{}
	for _, d := range a.events("") {
		have[d.ID] = true
	}
	if len(k.kept) == 0 || len(k.streamed) < rounds*100 {
		t.Fatalf("only %d events were seen by GET, %d in the stream: nothing was tested", len(k.kept), len(k.streamed))
	}
	for id := range k.kept {
		if !have[id] {
			t.Errorf("event %s was shown by GET and is gone", id)
		}
	}
	last := time.Duration(worst * float64(time.Second))
	lost, early := k.missing(have, kills, last)
	if early > 0 {
		t.Errorf("%d events were in the stream more than %v before a kill and are gone", early, last)
	}
	checkNothingAside(t, a)
	checkHistory(t, a, kills)
	slices.Sort(starts)
	t.Logf("%d kills; start to ready: median %v, max %v; %d datagrams, %d events in the stream, %d by GET, %d in the store; lost of the last second: %d",
		rounds, starts[len(starts)/2], starts[len(starts)-1], sent, len(k.streamed), len(k.kept), len(have), lost)
}

// missing counts the streamed events that are not there, and those of them that
// were streamed longer than last before the next kill.
func (k *acks) missing(have map[string]bool, kills []time.Time, last time.Duration) (lost, early int) {
	for id, at := range k.streamed {
		if have[id] {
			continue
		}
		lost++
		next := slices.IndexFunc(kills, func(kill time.Time) bool { return kill.After(at) })
		if next < 0 || kills[next].Sub(at) > last {
			early++
		}
	}
	return lost, early
}

func checkNothingAside(t *testing.T, a *agent) {
	t.Helper()
	if names := aside(t, a.data); len(names) > 0 {
		t.Errorf("set aside: %v", names)
	}
	if st := a.system().Store; st.Error != "" {
		t.Errorf("store status %+v", st)
	}
}

// aside lists what the store has moved out of the way.
func aside(t testing.TB, data string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if strings.Contains(e.Name(), ".corrupt-") || strings.Contains(e.Name(), ".ahead-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// checkHistory: every run of the agent, however short, has left samples.
func checkHistory(t *testing.T, a *agent, kills []time.Time) {
	t.Helper()
	span := time.Since(kills[0]) + 10*time.Second
	n, ok := a.query(fmt.Sprintf("count_over_time(huatuo_load_average{window=\"1m\"}[%ds])", int(span.Seconds())))
	if !ok || n < float64(len(kills)) {
		t.Errorf("%v samples of %d runs", n, len(kills))
	}
}
