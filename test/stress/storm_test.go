package stress

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// What the network probes are to stand (docs/design: cost of drops and retransmits).
const (
	dropsOffered       = 100_000 // a second
	retransmitsOffered = 20_000
	allowedCPU         = 0.02 // of a core, for the agent's own process
	allowedLoss        = 0.02 // of the host's throughput
)

// stormPage, in the environment, is the file that TestStorm writes its figures to.
const stormPage = "HUATUO_LOAD_PAGE"

// figures are what a storm was and what it cost.
type figures struct {
	what    string
	offered float64 // a second
	reached float64
	counted string  // by the kernel and by the agent
	events  int     // of the storm
	limit   float64 // that the rate limit lets through
	cpu     float64 // of the agent, share of a core
}

func (f figures) String() string {
	return fmt.Sprintf("%s: offered %.0f/s, reached %.0f/s; %s; %d events, at most %.0f may pass; the agent took %.2f %% of a core",
		f.what, f.offered, f.reached, f.counted, f.events, f.limit, f.cpu*100)
}

// TestStorm offers 100,000 drops and 20,000 retransmits a second: all are counted
// exactly, few become events, the books balance, and the agent and the host go on.
func TestStorm(t *testing.T) {
	needRoot(t)
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install iproute2 iptables", tool)
		}
	}
	var page strings.Builder
	report := func(f figures) {
		t.Log(f)
		fmt.Fprintf(&page, "| %s | %.0f | %.0f | %s | %d of %.0f | %.2f %% |\n", f.what, f.offered, f.reached, f.counted, f.events, f.limit, f.cpu*100)
		if f.cpu > pick(5*allowedCPU, allowedCPU) {
			t.Errorf("%s: the agent took %.2f %% of a core", f.what, f.cpu*100)
		}
		if float64(f.events) > f.limit {
			t.Errorf("%s: %d events passed the rate limit, which lets %.0f through", f.what, f.events, f.limit)
		}
		if f.events == 0 {
			t.Errorf("%s: no event at all", f.what)
		}
	}
	t.Run("drops", func(t *testing.T) { report(stormOfDrops(t)) })
	t.Run("retransmits", func(t *testing.T) { report(stormOfRetransmits(t)) })
	ratios := pairs(t)
	if file := os.Getenv(stormPage); file != "" && !t.Failed() {
		if err := os.WriteFile(file, []byte(stormText(page.String(), ratios)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func stormText(rows string, ratios []float64) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	var all []string
	for _, r := range ratios {
		all = append(all, fmt.Sprintf("%.3f", r))
	}
	return fmt.Sprintf("<!-- Written by `make load`. Do not edit. -->\n# A storm of drops and retransmits\n\n"+
		"Measured on Linux %s, %s, %d CPUs, all probes on with their defaults, by `make load` (TestStorm in test/stress). The books of each probe balance to the last event: "+
		"observed = delivered + dropped for a reason.\n\n"+
		"| storm | offered a second | reached | counted | events, of those the rate limit lets through | CPU of the agent, of one core (target < 2 %%) |\n|---|---|---|---|---|---|\n%s\n"+
		"What the host gets done beside %d drops a second, with the agent ÷ without, %d pairs: median ×%.3f (target ≥ 0.98), all: %s.\n",
		unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(), rows, dropsOffered, len(ratios), middle(ratios), strings.Join(all, ", "))
}

func middle(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func newStormPair(t *testing.T) *netpair.Pair {
	t.Helper()
	p, err := netpair.New(fmt.Sprintf("hs%d", os.Getpid()%100000))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	return p
}

// experimental is a protocol on IP that nobody else on the host speaks (RFC 3692):
// what is lost of it is the storm's.
const experimental = 253

// firewall drops what side B sends of it.
func firewall(t *testing.T, p *netpair.Pair) {
	t.Helper()
	if err := p.B.Run("iptables", "-A", "OUTPUT", "-p", strconv.Itoa(experimental), "-j", "DROP"); err != nil {
		t.Skipf("needs iptables: %v", err)
	}
}

// flood sends so many packets a second into the firewall until done is closed,
// and returns how many.
func flood(p *netpair.Pair, perSecond float64, done <-chan struct{}) (sent uint64, err error) {
	err = p.B.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experimental)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		payload, began := make([]byte, 64), time.Now()
		for {
			select {
			case <-done:
				return nil
			default:
			}
			for due := uint64(perSecond * time.Since(began).Seconds()); sent < due; sent++ {
				if _, err := unix.Write(fd, payload); err != unix.EPERM { // the firewall's answer
					return fmt.Errorf("the firewall lets packets through: %v", err)
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	return sent, err
}

func stormOfDrops(t *testing.T) figures {
	p := newStormPair(t)
	firewall(t, p)
	a := start(t, t.TempDir(), nil)
	time.Sleep(2 * time.Second) // past the start
	const series = `huatuo_network_drops_total{reason="NETFILTER_DROP",protocol="ip",normal="false"}`
	before, _ := a.metric(series)
	account := a.account("netdrop")
	d := pick(4*time.Second, 20*time.Second)
	cpu, began := usageOf(t, a.pid).cpu, time.Now()
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	sent, err := flood(p, dropsOffered, done)
	took := time.Since(began)
	cpu = usageOf(t, a.pid).cpu - cpu
	if err != nil {
		t.Fatal(err)
	}
	var more float64
	eventually(t, 10*time.Second, "all drops", func() error {
		after, _ := a.metric(series)
		if more = after - before; more < float64(sent) {
			return fmt.Errorf("%.0f counted, %d sent", more, sent)
		}
		return nil
	})
	kernel := firewalled(t, p)
	if kernel != sent || more != float64(sent) {
		t.Errorf("%d were sent, the firewall counts %d, the agent %.0f", sent, kernel, more)
	}
	a.balanced()
	now := a.account("netdrop")
	if n := now.Observed - account.Observed; n < sent {
		t.Errorf("the account has observed %d drops, %d were sent: %+v", n, sent, now)
	}
	return figures{
		what: "drops", offered: dropsOffered, reached: float64(sent) / took.Seconds(), counted: fmt.Sprintf("%d by the firewall, %.0f by the agent", kernel, more),
		events: a.count("packet_drop", fmt.Sprintf("field.netns=%d", p.B.Inode)), limit: passing(a, "netdrop", time.Since(began)), cpu: cpu.Seconds() / took.Seconds(),
	}
}

// firewalled is how many packets the rule has dropped, by its own count.
func firewalled(t *testing.T, p *netpair.Pair) uint64 {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", p.B.Name, "iptables", "-L", "OUTPUT", "-v", "-x", "-n").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "DROP" {
			n, err := strconv.ParseUint(f[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no rule in %s", out)
	return 0
}

// account is that of one probe.
func (a *agent) account(probe string) signal.Account {
	a.t.Helper()
	for _, acc := range a.system().Accounts {
		if acc.Probe == probe {
			return acc
		}
	}
	a.t.Fatalf("no account of %s", probe)
	return signal.Account{}
}

// count is how many events of a kind there are; filter is a parameter of the API.
func (a *agent) count(kind, filter string) int {
	a.t.Helper()
	n, before := 0, ""
	for {
		var page signal.EventPage
		a.json("/api/v1/events?limit=500&kind="+kind+"&"+filter+"&before="+before, &page)
		n += len(page.Events)
		if before = page.Next; before == "" {
			return n
		}
	}
}

// passing is how many events of one kind and set of reasons a probe's rate limit
// lets through in that time, on all CPUs.
func passing(a *agent, probe string, d time.Duration) float64 {
	a.t.Helper()
	var p struct{ Config map[string]any }
	a.json("/api/v1/probes/"+probe, &p)
	knob := func(name string) float64 {
		v, err := strconv.ParseFloat(fmt.Sprint(p.Config[name]), 64)
		if err != nil {
			a.t.Fatalf("probe %s: %s: %v in %v", probe, name, err, p.Config)
		}
		return v
	}
	return float64(runtime.NumCPU()) * (knob("burst") + knob("rate")*d.Seconds())
}

// pairs compares what the host gets done beside a storm of drops with the agent
// and without.
func pairs(t *testing.T) []float64 {
	p := newStormPair(t)
	firewall(t, p)
	d := pick(2*time.Second, 5*time.Second)
	window := func() float64 {
		done := make(chan struct{})
		time.AfterFunc(d, func() { close(done) })
		work := spin(done)
		if _, err := flood(p, dropsOffered, done); err != nil {
			t.Fatal(err)
		}
		return float64(<-work)
	}
	window() // warm
	var ratios []float64
	for i := range pick(3, 9) {
		on := func() float64 {
			a := start(t, t.TempDir(), nil)
			defer a.stop()
			time.Sleep(time.Second) // past the start
			return window()
		}
		var with, without float64
		if i%2 == 0 { // what drifts must not always be on the same side
			with, without = on(), window()
		} else {
			without, with = window(), on()
		}
		ratios = append(ratios, with/without)
	}
	slow := slowness()
	t.Logf("beside %d drops a second the host gets ×%.3f done with the agent, of %v; a busy loop takes ×%.2f its CPU time here", dropsOffered, middle(ratios), ratios, slow)
	// Others on the machine move this by more than the agent does.
	if least := pick(0.5, 1-allowedLoss); middle(ratios) < least && slow < 1.1 {
		t.Errorf("the host gets ×%.3f done, want ×%.2f", middle(ratios), least)
	}
	return ratios
}

// spin counts how often all CPUs come round in a loop until done is closed.
func spin(done <-chan struct{}) <-chan uint64 {
	out := make(chan uint64, 1)
	each := make(chan uint64)
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var n, x uint64
			for {
				for range 100_000 {
					x = x*6364136223846793005 + 1
				}
				n++
				select {
				case <-done:
					runtime.KeepAlive(x)
					each <- n
					return
				default:
				}
			}
		}()
	}
	go func() {
		var sum uint64
		for range runtime.NumCPU() {
			sum += <-each
		}
		out <- sum
	}()
	return out
}
