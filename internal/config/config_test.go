package config

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
)

// sched and disk are configurations as a probe would have them.
type sched struct {
	Threshold time.Duration `yaml:"threshold" min:"1ms" help:"Wait that makes an event."`
	Buffer    uint32        `yaml:"buffer" unit:"bytes" help:"Size of the ring."`
	Ratio     float64       `yaml:"ratio" min:"0" max:"1" help:"Share kept."`
	Skip      []string      `yaml:"skip" check:"regexp" help:"Commands left out."`
	CPUs      []int         `yaml:"cpus" help:"CPUs watched."`
	Key       string        `yaml:"key" secret:"true" help:"A credential."`
	Deep      deep          `yaml:"deep" help:"A section."`
	Packets   string        `yaml:"packets" check:"packets" help:"Packets kept."`
	Knobs     `yaml:",inline"`
}

// Knobs are keys that several probes share.
type Knobs struct {
	Rate int `yaml:"rate" help:"Events per second."`
}

type deep struct {
	On bool `yaml:"on" help:"Whether it is on."`
}

func specs() []probe.Spec {
	return []probe.Spec{
		probe.New(probe.Meta{Name: "sched", Help: "Watches."}, sched{Threshold: 50 * time.Millisecond, Buffer: 1 << 18, Ratio: 1, Skip: []string{"^a,b$"}}, func(context.Context, *probe.Env, sched) error { return nil }),
		probe.New(probe.Meta{Name: "plain", Help: "Has no keys."}, struct{}{}, func(context.Context, *probe.Env, struct{}) error { return nil }),
	}
}

func mustParse(t *testing.T, yaml string, env []string, flags map[string]string) *Config {
	t.Helper()
	c, err := parse("huatuo.yaml", []byte(yaml), env, flags, specs())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPrecedence sets one key in all three places and others in fewer.
func TestPrecedence(t *testing.T) {
	c := mustParse(t, "listen: 1.2.3.4:1\nstore:\n  dir: /file\n  metrics: {retention: 2w1d12h, max_size: 512MiB}\nlog: {level: debug}\n",
		[]string{"HUATUO_LISTEN=1.2.3.4:2", "HUATUO_STORE_DIR=/env", "HUATUO_CONFIG=/x", "HUATUO_SERVICE_HOST=10.0.0.1", "PATH=/bin", "HUATUO_KERNEL_HOOKS=tp_btf, raw_tp"},
		map[string]string{"listen": ":3"})
	if c.Listen != ":3" || c.Store.Dir != "/env" || c.Store.Metrics.Retention != 15*day+12*time.Hour || c.Store.Metrics.MaxSize != 512<<20 {
		t.Errorf("wrong values: %+v", c)
	}
	if !slices.Equal(c.Kernel.Hooks, []string{"tp_btf", "raw_tp"}) {
		t.Errorf("kernel.hooks = %q", c.Kernel.Hooks)
	}
	for key, want := range map[string]string{
		"listen": "--listen", "store.dir": "HUATUO_STORE_DIR", "store.metrics.retention": "huatuo.yaml:4",
		"log.level": "huatuo.yaml:5", "log.format": "default", "kernel.hooks": "HUATUO_KERNEL_HOOKS",
	} {
		if got := c.Origin(key); got != want {
			t.Errorf("origin of %s = %q, want %q", key, got, want)
		}
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "HUATUO_SERVICE_HOST") {
		t.Errorf("warnings = %q, want one about HUATUO_SERVICE_HOST", c.Warnings)
	}
}

func TestProbeConfig(t *testing.T) {
	c := mustParse(t, `
probes:
  sched:
    threshold: 10ms
    buffer: 1MiB
    ratio: 0.5
    skip: [^x$, "a,b"]
    cpus: [0, 3]
    deep: {on: true}
    packets: tcp port 443
    rate: 7
  plain: {enabled: false}
`, []string{"HUATUO_PROBES_SCHED_KEY=k"}, nil)
	got, on := c.Probe("sched")
	want := sched{10 * time.Millisecond, 1 << 20, 0.5, []string{"^x$", "a,b"}, []int{0, 3}, "k", deep{true}, "tcp port 443", Knobs{7}}
	if !on || !reflect.DeepEqual(got, want) {
		t.Errorf("sched = %+v, %v; want %+v, true", got, on, want)
	}
	if _, on := c.Probe("plain"); on {
		t.Error("plain is enabled")
	}
	if cfg, on := c.Probe("nosuch"); on || cfg != nil {
		t.Error("a probe that does not exist is enabled")
	}
	if got := c.ProbeValues("sched"); got["key"] != masked || got["deep.on"] != "true" || got["buffer"] != "1MiB" || got["enabled"] != "true" {
		t.Errorf("ProbeValues = %v", got)
	}
	if got, _ := Default(specs()).Probe("sched"); !reflect.DeepEqual(got, specs()[0].Config) {
		t.Errorf("loading changed the defaults of the spec: %+v", got)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		env        []string
		flags      map[string]string
		want       []string
	}{
		{name: "unknown key", yaml: "store:\n  metrics:\n    retension: 3d\n", want: []string{`huatuo.yaml:3: unknown key "retension" in store.metrics: did you mean "retention"?`}},
		{name: "unknown section", yaml: "prbes: {}\n", want: []string{`huatuo.yaml:1: unknown key "prbes" in the configuration: did you mean "probes"?`}},
		{name: "unknown probe", yaml: "probes: {scheed: {}}", want: []string{`unknown key "scheed" in probes: did you mean "sched"?`}},
		{name: "nothing near", yaml: "zzzzzzzz: 1", want: []string{`unknown key "zzzzzzzz" in the configuration`}},
		{name: "twice", yaml: "listen: :1\nlisten: :2\n", want: []string{"huatuo.yaml:2: listen is set twice, first in line 1"}},
		{name: "bad duration", yaml: "store: {interval: 5}", want: []string{`store.interval: "5" is not a duration: write a number and a unit`}},
		{name: "bad size", yaml: "store: {events: {max_size: 1XB}}", want: []string{`"1XB" is not a size: write a number and a unit`}},
		{name: "bad bool", yaml: "store: {enabled: yes}", want: []string{`"yes" is neither true nor false`}},
		{name: "bad number", yaml: "pipe: {queue: many}", want: []string{`"many" is not a whole number`}},
		{name: "overflow", yaml: "probes: {sched: {buffer: 5GiB}}", want: []string{`"5GiB" is out of range`}},
		{name: "negative unsigned", yaml: "probes: {sched: {cpus: [1.5]}}", want: []string{`"1.5" is not a whole number`}},
		{name: "not a number", yaml: "probes: {sched: {ratio: .nan}}", want: []string{`is not a number`}},
		{name: "scalar for section", yaml: "store: none", want: []string{"store: expected keys below it"}},
		{name: "section for scalar", yaml: "listen: {a: 1}", want: []string{"listen: expected one value"}},
		{name: "scalar for list", yaml: "kernel: {hooks: kprobe}", want: []string{"kernel.hooks: expected a list: write [kprobe]"}},
		{name: "list of lists", yaml: "kernel: {hooks: [[kprobe]]}", want: []string{"expected a plain value"}},
		{name: "null leaf", yaml: "listen:", want: []string{"listen: no value: write one, or remove the line"}},
		{name: "null list", yaml: "kernel:\n  hooks:\n", want: []string{"write [] for an empty list"}},
		{name: "list at top", yaml: "- a", want: []string{"the configuration: expected keys below it"}},
		{name: "syntax", yaml: "a: [", want: []string{"huatuo.yaml: line 1:"}},
		{name: "two documents", yaml: "listen: :1\n---\nlisten: :2\n", want: []string{"more than one document"}},
		{name: "enum", yaml: "log: {level: warning}", want: []string{`log.level (huatuo.yaml:1): "warning" is not one of debug, info, warn, error: did you mean "warn"?`}},
		{name: "enum in list", yaml: "kernel: {hooks: [tp_btf, krobe]}", want: []string{`did you mean "kprobe"?`}},
		{name: "minimum", yaml: "store: {interval: 10ms}", want: []string{"10ms is less than the minimum, 1s"}},
		{name: "maximum", yaml: "pipe: {queue: 9999999}", want: []string{"9999999 is more than the maximum, 1048576"}},
		{name: "size minimum", yaml: "store: {metrics: {max_size: 1MiB}}", want: []string{"1MiB is less than the minimum, 64MiB"}},
		{name: "regexp", yaml: `enrich: {redact_patterns: ["("]}`, want: []string{`"(" is not a regular expression`}},
		{name: "packets", yaml: "probes: {sched: {packets: tcp prt 443}}", want: []string{`probes.sched.packets (huatuo.yaml:1): packet filter "tcp prt 443": at column 5`}},
		{name: "address", yaml: "listen: 19704", want: []string{`"19704" is not an address: write host:port`}},
		{name: "port", yaml: "listen: localhost:http", want: []string{"has no valid port"}},
		{name: "root", yaml: "host: {root: host}", want: []string{`"host" is not an absolute path`}},
		{name: "store", yaml: `store: {dir: ""}`, want: []string{"store.dir (huatuo.yaml:1): name a directory"}},
		{name: "environment", env: []string{"HUATUO_PIPE_QUEUE=x"}, want: []string{`HUATUO_PIPE_QUEUE: "x" is not a whole number`}},
		{name: "flag", flags: map[string]string{"listen": "nope"}, want: []string{`listen (--listen): "nope" is not an address`}},
		{name: "unknown flag key", flags: map[string]string{"store.dirr": "x"}, want: []string{`unknown configuration key "store.dirr": did you mean "store.dir"?`}},
		{name: "all of them", yaml: "a: 1\nlog: {level: x}\n", env: []string{"HUATUO_STORE_ENABLED=2"}, want: []string{`unknown key "a"`, "log.level", "HUATUO_STORE_ENABLED"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse("huatuo.yaml", []byte(tt.yaml), tt.env, tt.flags, specs())
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func TestNothingSet(t *testing.T) {
	for _, yaml := range []string{"", "# only a comment\n", "---\n", "store:\nprobes:\n  sched:\n", string(Sample(specs()))} {
		c := mustParse(t, yaml, nil, nil)
		if d := Diff(Default(specs()), c); len(d) != 0 {
			t.Errorf("%.30q changes %v", yaml, d)
		}
	}
}

// TestSampleUncommented: every line of the sample is a valid setting.
func TestSampleUncommented(t *testing.T) {
	var out []string
	for line := range strings.Lines(string(Sample(specs()))) {
		body := strings.TrimLeft(line, " ")
		if rest, ok := strings.CutPrefix(body, "# "); ok && strings.Contains(strings.SplitN(rest, " ", 2)[0], ":") {
			line = line[:len(line)-len(body)] + rest
		}
		out = append(out, line)
	}
	c := mustParse(t, strings.Join(out, ""), nil, nil)
	if d := Diff(Default(specs()), c); len(d) != 0 {
		t.Errorf("the sample's values are not the defaults: %v", d)
	}
	for _, e := range Reference(specs()) {
		if c.Origin(e.Key) == "default" && !strings.Contains(e.Key, "[]") {
			t.Errorf("%s is not in the sample", e.Key)
		}
	}
}

func TestPrint(t *testing.T) {
	c := mustParse(t, "store: {metrics: {retention: 36h}}", []string{"HUATUO_PROBES_SCHED_KEY=hunter2"}, map[string]string{"store.dir": "/a b"})
	out := string(c.Print())
	for _, want := range []string{
		"listen: 127.0.0.1:19704  # default\n",
		"    retention: 1d12h  # huatuo.yaml:1\n",
		"  dir: \"/a b\"  # --data\n",
		"    key: \"<secret>\"  # HUATUO_PROBES_SCHED_KEY\n",
		"    skip: [\"^a,b$\"]  # default\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "hunter2") {
		t.Error("the secret is printed")
	}
}

func TestDiff(t *testing.T) {
	a := mustParse(t, "", nil, nil)
	b := mustParse(t, "listen: :1\nlog: {level: debug}\nprobes: {sched: {threshold: 1s, key: s3cret}, plain: {enabled: false}}", nil, nil)
	want := []Change{
		{Key: "listen", Old: "127.0.0.1:19704", New: ":1"},
		{Key: "log.level", Old: "info", New: "debug", Reload: true},
		{Key: "probes.sched.threshold", Old: "50ms", New: "1s", Reload: true, Probe: "sched"},
		{Key: "probes.sched.key", New: masked, Reload: true, Probe: "sched"},
		{Key: "probes.plain.enabled", Old: "true", New: "false", Reload: true, Probe: "plain"},
	}
	if got := Diff(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("Diff = %+v\nwant %+v", got, want)
	}
}

// TestReference: no two keys share a variable or a flag, and help is a sentence.
func TestReference(t *testing.T) {
	seen := map[string]string{}
	for _, e := range Reference(specs()) {
		for _, n := range []string{e.Env, e.Flag} {
			if n != "" && seen[n] != "" {
				t.Errorf("%s is both %s and %s", n, seen[n], e.Key)
			}
			seen[n] = e.Key
		}
		if !strings.HasSuffix(e.Help, ".") {
			t.Errorf("%s: help %q is not a sentence", e.Key, e.Help)
		}
	}
}

// TestHooks: the legal kinds of hook are the loader's.
func TestHooks(t *testing.T) {
	for _, e := range Reference(nil) {
		if e.Key == "kernel.hooks" && e.Legal != strings.Join(load.Kinds(), ",") {
			t.Errorf("kernel.hooks allows %s, the loader knows %s", e.Legal, load.Kinds())
		}
	}
}

func TestBadTagsPanic(t *testing.T) {
	bad := func(name string, s probe.Spec) {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			Default([]probe.Spec{s})
		})
	}
	type noHelp struct {
		A int `yaml:"a"`
	}
	type noYAML struct {
		A int `help:"A."`
	}
	type badType struct {
		A map[string]int `yaml:"a" help:"A."`
	}
	bad("no help", probe.New(probe.Meta{Name: "p"}, noHelp{}, nil))
	bad("no yaml", probe.New(probe.Meta{Name: "p"}, noYAML{}, nil))
	bad("type", probe.New(probe.Meta{Name: "p"}, badType{}, nil))
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("pipe: {queue: 17}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(good, nil, nil, specs()); err != nil || c.Pipe.Queue != 17 {
		t.Errorf("Load = %+v, %v", c, err)
	}
	if c, err := Load("", nil, nil, nil); err != nil || c.Pipe.Queue != 4096 {
		t.Errorf("Load without a file = %+v, %v", c, err)
	}
	if _, err := Load(filepath.Join(dir, "absent"), nil, nil, nil); !os.IsNotExist(unwrap(err)) {
		t.Errorf("Load of an absent file = %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "not a configuration file") {
		t.Errorf("Load of a huge file = %v", err)
	}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}
