package nvme

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// newLog is a log page as the specification has it.
func newLog(change func(b []byte)) []byte {
	b := make([]byte, logBytes)
	binary.LittleEndian.PutUint16(b[1:], 273+41)
	b[3], b[4], b[5] = 97, 10, 3
	for at, v := range map[int]uint64{32: 2, 48: 4, 64: 9, 80: 9, 96: 5, 112: 17, 128: 100, 144: 4, 176: 12} {
		binary.LittleEndian.PutUint64(b[at:], v)
	}
	binary.LittleEndian.PutUint64(b[56:], 1) // the upper half of what was written
	binary.LittleEndian.PutUint32(b[192:], 3)
	binary.LittleEndian.PutUint32(b[196:], 1)
	if change != nil {
		change(b)
	}
	return b
}

// start runs the poller, with devices that are functions, until the test's end.
func start(t *testing.T, logs map[string]func() ([]byte, error)) (*probetest.Env, *poller) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	p := newPoller(e.Env, Config{Interval: time.Hour, Timeout: 2 * time.Second})
	p.readLog = func(dev string) ([]byte, error) { return logs[filepath.Base(dev)]() }
	return e, p
}

func TestHealth(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	page, failed := newLog(nil), false
	e, p := start(t, map[string]func() ([]byte, error){
		"nvme0": func() ([]byte, error) {
			if failed {
				return nil, errors.New("gone")
			}
			return page, nil
		},
		"nvme1": func() ([]byte, error) { <-hang; return nil, nil },
	})
	look := func() []signal.Sample {
		t.Helper()
		p.asker.Ask(t.Context(), p.names())
		p.judge()
		b := new(signal.Batch)
		if err := p.collect(b); err != nil {
			t.Fatal(err)
		}
		return b.Samples
	}
	probetest.Golden(t, "testdata/health.golden", look(), nil, *update)
	if n := len(e.Records()); n != 0 {
		t.Errorf("%d events of a device that is well", n)
	}
	page = newLog(func(b []byte) { b[0], b[160] = 1<<2|1<<7, 3 })
	look()
	page = newLog(func(b []byte) { b[0], b[160] = 1<<2|1<<0, 3 })
	look()
	look()
	var titles []string
	for _, r := range e.Records() {
		titles = append(titles, r.Title)
		if b := r.Body.(*Warning); b.Serial != "S4EWNX0R1" || b.Celsius != 41 || b.Used != 0.03 {
			t.Errorf("event %+v", b)
		}
	}
	want := "nvme0 (SAMSUNG MZVL2512) warns: degraded and could not correct data 3 times; nvme0 (SAMSUNG MZVL2512) warns: spare"
	if got := strings.Join(titles, "; "); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	failed = true
	if n := len(look()); n != 2 {
		t.Errorf("%d samples of a device that gives errors and one that hangs, want what tells that one hangs", n)
	}
}

func TestParse(t *testing.T) {
	h, err := parse(newLog(nil))
	if err != nil || h.writtenBytes != (4+1<<64)*512000. || h.busySeconds != 300 || h.onSeconds != 360000 || h.celsius != 41 || h.warmSeconds != 180 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := parse(make([]byte, logBytes-1)); err == nil {
		t.Error("a short log parses")
	}
}

// TestRecorded parses what qemu's device told in a guest of `make vmtest`, after
// the kernel had read a little of it.
func TestRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/qemu.hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := parse(append(b, make([]byte, logBytes-len(b))...)) // the rest is zero
	if err != nil {
		t.Fatal(err)
	}
	if want := (health{celsius: 50, readBytes: 18 * 512000}); h != want {
		t.Errorf("%+v, want %+v", h, want)
	}
}

func TestNone(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, probe.ErrAbsent) {
		t.Errorf("without a controller: %v", err)
	}
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	if err := e.TryStart(Spec(), nil); err == nil || !strings.Contains(err.Error(), "/dev") {
		t.Errorf("without /dev: %v", err)
	}
	if err := e.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.nvme.interval") {
		t.Errorf("without an interval: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(newLog(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parse(b); err == nil {
			names(h.warning)
		}
	})
}

// device finds a controller by its serial number.
func device(t *testing.T, serial string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	files, err := filepath.Glob("/sys/class/nvme/*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && (serial == "" || strings.TrimSpace(string(b)) == serial) {
			return filepath.Base(filepath.Dir(f))
		}
	}
	t.Skip("needs an NVMe device: `make vmtest P=nvme` gives guests two")
	return ""
}

// TestKernelWarning: a device that says of itself that it is no longer reliable
// makes an event, and one beside it makes none.
func TestKernelWarning(t *testing.T) {
	worn, well := device(t, "worn"), device(t, "huatuo")
	e := probetest.New(t)
	e.Start(Spec(), Config{Interval: 50 * time.Millisecond, Timeout: 10 * time.Second})
	r := e.WaitRecord(func(r *signal.Record) bool { return r.Schema == warned })
	b := r.Body.(*Warning)
	if b.Device != worn || b.Serial != "worn" || !slices.Equal(b.New, []string{"degraded"}) || !strings.HasPrefix(r.Title, worn+" (QEMU NVMe Ctrl) warns: degraded") {
		t.Errorf("%s: %+v", r.Title, b)
	}
	for _, r := range e.Records() {
		if r.Body.(*Warning).Device == well {
			t.Errorf("event of a device that is well: %s", r.Title)
		}
	}
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("document: %s", text)
}

// TestKernel asks a real device, and reads from it a known number of bytes.
func TestKernel(t *testing.T) {
	name := device(t, "")
	dev := "/dev/" + name
	e := probetest.New(t)
	e.Start(Spec(), Config{Interval: 50 * time.Millisecond, Timeout: 10 * time.Second})
	samples := e.Gather()
	value := func(what string) float64 {
		v, ok := probetest.Value(samples, "huatuo_nvme_"+what, name)
		if !ok {
			t.Fatalf("no huatuo_nvme_%s", what)
		}
		return v
	}
	if c := value("temperature_celsius"); c < 1 || c > 120 {
		t.Errorf("%v °C", c)
	}
	if value("hung") != 0 || value("used_ratio") > 2.55 {
		t.Errorf("hung %v, used %v", value("hung"), value("used_ratio"))
	}
	before := value("read_bytes_total")
	const size = 8 << 20
	f, err := os.Open(dev + "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Read(make([]byte, size)); n != size || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	var grown float64
	for end := time.Now().Add(10 * time.Second); grown < size-512000 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		samples = e.Gather()
		grown = value("read_bytes_total") - before
	}
	if grown < size-512000 || grown > 4*size { // in steps of 512,000; read-ahead reads more
		t.Errorf("%d bytes read, the device counts %v", size, grown)
	}
	b, err := readLog(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("health log: %x", b[:232])
}
