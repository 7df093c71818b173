package stress

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// quietFor, in the environment, is how long TestQuiet looks: QUIET=1h.
const quietFor = "QUIET"

// busy is the share of all CPUs above which a machine is not idle. What others do
// on it then is their trouble, and may be an event with good reason.
const busy = 0.1

// TestQuiet: a host without trouble makes no event that anybody has to look at.
func TestQuiet(t *testing.T) {
	needRoot(t)
	d := pick(time.Minute, 10*time.Minute)
	if s := os.Getenv(quietFor); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", quietFor, err)
		}
	}
	a := start(t, t.TempDir(), nil)
	time.Sleep(5 * time.Second) // past the start, which is work
	began := time.Now()
	cpu, own := cpuTimes(t), usageOf(t, a.pid).cpu
	time.Sleep(d)
	used := cpuTimes(t).minus(cpu)
	own = usageOf(t, a.pid).cpu - own
	others := (used.busy - own.Seconds()) / used.all
	var loud []string
	kinds := map[string]int{}
	for _, doc := range a.events("") {
		if doc.Time.Before(began) {
			continue
		}
		kinds[doc.Kind+" "+string(doc.Severity)]++
		if doc.Severity == signal.Warning || doc.Severity == signal.Critical {
			loud = append(loud, fmt.Sprintf("%s %s: %s", doc.Time.Format(time.TimeOnly), doc.Kind, doc.Title))
		}
	}
	t.Logf("%v: others used %.1f %% of the CPUs, the agent %.2f %% of a core; events: %v", d, others*100, 100*own.Seconds()/d.Seconds(), kinds)
	if others > busy {
		t.Skipf("needs an idle machine: others used %.0f %% of its CPUs, and made %d events of severity warning or critical", others*100, len(loud))
	}
	if len(loud) > 0 {
		t.Errorf("%d events of severity warning or critical on an idle host:\n%s", len(loud), strings.Join(loud, "\n"))
	}
	a.balanced()
}

// machineTime is what all CPUs together did, in seconds.
type machineTime struct{ busy, all float64 }

func (m machineTime) minus(o machineTime) machineTime {
	return machineTime{m.busy - o.busy, m.all - o.all}
}

// cpuTimes reads the first line of /proc/stat, in units of 10 ms.
func cpuTimes(t *testing.T) (m machineTime) {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line)[1:9] { // guest time is in user time already
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		m.all += n / 100
		if i != 3 && i != 4 { // idle, iowait
			m.busy += n / 100
		}
	}
	return m
}
