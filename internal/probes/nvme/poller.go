package nvme

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// report is what a device told.
type report struct {
	model, serial, firmware, transport string
	health                             health
}

type poller struct {
	class    string // /sys/class/nvme
	dev      string
	asker    *probe.Asker[report]
	readLog  func(dev string) ([]byte, error)
	emit     func(*signal.Record)
	emitted  atomic.Uint64
	now      func() time.Time
	complain func(msg string, args ...any)

	before map[string]health // as judge saw it last
	failed map[string]bool
}

func newPoller(env *probe.Env, cfg Config) *poller {
	p := &poller{
		class: filepath.Join(env.Root, "sys/class/nvme"), dev: filepath.Join(env.Root, "dev"),
		readLog: readLog, emit: env.Emit, now: env.Now, complain: env.Log.Warn,
		before: map[string]health{}, failed: map[string]bool{},
	}
	p.asker = probe.NewAsker(cfg.Timeout, p.ask)
	return p
}

// ask runs in a goroutine of the device's own.
func (p *poller) ask(name string) (report, error) {
	var r report
	text := func(attr string) string { s, _ := sysfs.Text(p.class, name, attr); return s }
	r.model, r.serial, r.firmware, r.transport = text("model"), text("serial"), text("firmware_rev"), text("transport")
	b, err := p.readLog(filepath.Join(p.dev, name))
	if err != nil {
		return r, err
	}
	r.health, err = parse(b)
	return r, err
}

// collect gives what was told last.
func (p *poller) collect(b *signal.Batch) error {
	for _, a := range p.asker.Answers() {
		b.Value(hung, number(a.Hung), a.Name)
		if !a.Known || a.Hung {
			continue
		}
		r := a.Value
		b.Value(info, 1, a.Name, r.model, r.serial, r.firmware, r.transport)
		for i, w := range warnings {
			b.Value(critical, number(r.health.warning>>i&1 == 1), a.Name, w.label)
		}
		for _, v := range values {
			b.Value(v.schema, v.of(&r.health), a.Name)
		}
	}
	return nil
}

// judge compares what devices told with what they told before. What a device
// already says when the agent starts is an event when it is a warning, and is none when it
// is a number of errors: nobody knows when they were.
func (p *poller) judge() {
	for _, a := range p.asker.Answers() {
		if a.Err != nil && !p.failed[a.Name] {
			p.complain("cannot read the health of a device", "device", a.Name, "err", a.Err)
		}
		p.failed[a.Name] = a.Err != nil
		if !a.Known || a.Hung {
			continue
		}
		id := a.Name + " " + a.Value.serial // another device may have come in its place
		old, known := p.before[id]
		if !known {
			old.mediaErrors = a.Value.health.mediaErrors
		}
		p.before[id] = a.Value.health
		if r := event(a.Name, &a.Value, &old); r != nil {
			r.Time = p.now()
			p.emitted.Add(1)
			p.emit(r)
		}
	}
}

// event returns the record of what is new, nil when nothing is.
func event(name string, r *report, old *health) *signal.Record {
	b := &Warning{Device: name, Model: r.model, Serial: r.serial, Warnings: names(r.health.warning), New: names(r.health.warning &^ old.warning),
		MediaErrors: max(0, r.health.mediaErrors-old.mediaErrors), Celsius: r.health.celsius, Spare: r.health.spare, Used: r.health.used}
	var what []string
	if len(b.New) > 0 {
		what = append(what, "warns: "+strings.Join(b.New, ", "))
	}
	if b.MediaErrors > 0 {
		what = append(what, fmt.Sprintf("could not correct data %g times", b.MediaErrors))
	}
	if what == nil {
		return nil
	}
	return &signal.Record{Schema: warned, Title: fmt.Sprintf("%s (%s) %s", name, r.model, strings.Join(what, " and ")), Body: b}
}

// names of the bits that are set, those that later versions of the standard add
// left out.
func names(bits uint8) []string {
	out := []string{}
	for i, w := range warnings {
		if bits>>i&1 == 1 {
			out = append(out, w.label)
		}
	}
	return out
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
