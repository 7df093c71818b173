package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// toil spends its time in hotByPointers, which makes no frame of its own.
//
//go:noinline
func toil(stop chan struct{}) (n int) {
	for {
		select {
		case <-stop:
			return n
		default:
			n += callsHot()
		}
	}
}

//go:noinline
func callsHot() int { return hotByPointers(1<<20) + 1 }

//go:noinline
func hotByPointers(rounds int) (n int) {
	for i := range rounds {
		n += i ^ n
	}
	return n
}

// TestProfilesByFramePointers: with the engine of frame pointers the agent finds
// the function that takes the time and who called it, and says what it cannot see.
func TestProfilesByFramePointers(t *testing.T) {
	needRoot(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { toil(stop) })
	defer wg.Wait()
	defer close(stop)
	a := startIn(t, t.TempDir(), "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=97", "--set", "profiles.engine=frame_pointers")
	q := "pid=" + fmt.Sprint(os.Getpid())
	t.Cleanup(func() {
		if t.Failed() {
			_, folded := a.get("/api/v1/profiles/download?type=cpu&format=folded&" + q)
			t.Logf("stacks: %.6000s", folded)
		}
	})
	a.eventually(90*time.Second, "stacks with the function", func() error {
		var g signal.FlameGraph
		a.json("/api/v1/profiles/flame?type=cpu&"+q, &g)
		hot, called := inFunction(&g, "hotByPointers"), inFunction(&g, "callsHot")
		if g.Samples < 50 || float64(hot) < 0.3*float64(g.Total) || float64(called) < 0.9*float64(hot) {
			return fmt.Errorf("%d samples, %d of %d in the function, %d below its caller", g.Samples, hot, g.Total, called)
		}
		return nil
	})
	var types struct {
		Status struct{ State, Reason, Mode string }
	}
	if a.json("/api/v1/profiles/types", &types); types.Status.Mode != "frame_pointers" || types.Status.State != "degraded" || !strings.Contains(types.Status.Reason, "interpreters are not seen") {
		t.Errorf("%+v", types)
	}
}

// TestProfileCommandByFramePointers: so does the command.
func TestProfileCommandByFramePointers(t *testing.T) {
	needRoot(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { toil(stop) })
	defer wg.Wait()
	defer close(stop)
	code, out, errs := cli(t, "profile", "cpu", "--engine", "frame_pointers", "--pid", fmt.Sprint(os.Getpid()), "--for", "5s", "-o", "-")
	if code != 0 || !strings.Contains(out, "callsHot;huatuo/test/e2e.hotByPointers") {
		t.Errorf("exit %d: %.500s%s", code, out, errs)
	}
	for args, want := range map[string]string{
		"profile cpu --engine magic":                     "want auto, unwinder or frame_pointers",
		"profile offcpu.blocked --engine frame_pointers": "is not among what frame pointers show",
	} {
		if code, _, errs := cli(t, strings.Fields(args)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s", args, code, errs)
		}
	}
}

// inFunction is the value of all that a function and what it called has; one that
// calls itself counts once.
func inFunction(g *signal.FlameGraph, name string) (sum int64) {
	within := make([]bool, len(g.Nodes))
	for i, n := range g.Nodes {
		above := n.Parent >= 0 && within[n.Parent]
		is := strings.HasSuffix(g.Frames[n.Frame].Function, name)
		if within[i] = above || is; is && !above {
			sum += n.Total
		}
	}
	return sum
}
