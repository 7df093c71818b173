// Package config reads the agent's configuration: one strict YAML file,
// overridden by the environment, overridden by flags.
//
// The structs below are the reference. Their tags are read by the loader, the
// printer, the docs and the reload check, so a key is described once:
//
//	yaml     the key
//	help     what it does, one sentence
//	unit     "bytes" makes an integer a size: 512MiB
//	enum     legal values, separated by commas
//	min,max  bounds, in the text form of the type
//	check    "regexp": every string must compile; "address": host:port; "packets": empty,
//	         or a packet filter in tcpdump's syntax; "profiles": label=pattern & …
//	secret   "true": never printed
//	reload   "true": takes effect on SIGHUP, without a restart
//	flag     the command-line flag that sets it
//
// Probes describe their own configuration with the same tags; they appear
// under probes.<name>, beside probes.<name>.enabled.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"huatuo/internal/probe"
)

// DefaultPath is read when no file is named and it exists.
const DefaultPath = "/etc/huatuo/huatuo.yaml"

// maxFile bounds the file: the full reference is about 10 KB, so a larger one
// is a mistake (a log, a disk image), not a configuration.
const maxFile = 1 << 20

// Config is the configuration in force. Make one with Default or Load.
type Config struct {
	Listen     string     `yaml:"listen" flag:"listen" check:"address" help:"Address of the console, the API and /metrics. Any other than a loopback address needs credentials (web)."`
	Log        Log        `yaml:"log" help:"What the agent writes to standard error."`
	Host       Host       `yaml:"host" help:"How this machine is named, and where its files are."`
	Kernel     Kernel     `yaml:"kernel" help:"How BPF programs are brought into the kernel."`
	Store      Store      `yaml:"store" help:"The embedded store: metric history and events."`
	Web        Web        `yaml:"web" help:"Who may use the console and the API."`
	Enrich     Enrich     `yaml:"enrich" help:"What is added to an event about its process and container."`
	Containers Containers `yaml:"containers" help:"Where the names of containers and pods come from. Without any of it they go by what their cgroup path tells."`
	Budget     Budget     `yaml:"budget" help:"What the agent may cost, and what it gives up when it costs more."`
	Pipe       Pipe       `yaml:"pipe" help:"The way of an event from its probe to the store and the other sinks."`

	Profiles Profiles `yaml:"profiles" help:"Continuous profiling: stacks of everything that runs, kernel, compiled and interpreted code."`

	Symbols Symbols `yaml:"symbols" help:"Where the names of the functions in stacks come from."`

	Sinks Sinks `yaml:"sinks" help:"Where profiles are sent to besides the store."`

	KnownIssues []KnownIssue `yaml:"known_issues" reload:"true" example:"[{name: nightly_backup, kinds: [io_stall], process: \"^restic$\", label: the backup may wait}]" help:"Events whose cause is known: they are marked with the entry's name, or dropped and counted. Entries add to the built-in ones, which \u0060huatuo explain known_issues\u0060 lists; one of the same name stands in for it. All that an entry names must match."`

	// Warnings tells what was ignored, for the log.
	Warnings []string `yaml:"-"`

	probes []*probeConfig
	origin map[string]string
}

// Log configures the log.
type Log struct {
	Level  string `yaml:"level" flag:"log-level" enum:"debug,info,warn,error" reload:"true" help:"Least severe level that is written."`
	Format string `yaml:"format" flag:"log-format" enum:"text,json" help:"Form of a line."`
}

// Host names the machine.
type Host struct {
	Name   string `yaml:"name" help:"Name of this machine in events; empty: its hostname."`
	Region string `yaml:"region" help:"Region of this machine in events; empty: none."`
	Root   string `yaml:"root" flag:"root" help:"Where the host's proc and sys are found; in a container, where the host's root is mounted."`
}

// Kernel configures how BPF programs are loaded.
type Kernel struct {
	BTF     string   `yaml:"btf" flag:"btf" help:"BTF of the running kernel for kernels without /sys/kernel/btf/vmlinux: a file, or a directory of <release>.btf files."`
	Hooks   []string `yaml:"hooks" enum:"tp_btf,raw_tp,tracepoint,fentry,fexit,kprobe,perf_event,iter,cgroup_sysctl" help:"Kinds of attachment that may be used; empty: all. For tests, and to work around a kernel bug."`
	Ring    string   `yaml:"ring" enum:"auto,ringbuf,perf" help:"How events come out of the kernel; auto: the ring buffer where there is one (5.8), else the perf buffer."`
	Flavour string   `yaml:"flavour" enum:"auto,modern,legacy" help:"Which objects are loaded; auto: the legacy ones where the kernel lacks what the modern ones need (5.5). For tests, and to work around a kernel bug."`
}

// Store configures the embedded store.
type Store struct {
	Enabled  bool          `yaml:"enabled" help:"Keep history on this machine. Without it there are /metrics and the live stream only. --store none turns it off."`
	Dir      string        `yaml:"dir" flag:"data" help:"Directory of the store; it is made when it does not exist."`
	Interval time.Duration `yaml:"interval" min:"1s" max:"5m" help:"How often metrics are gathered into the store."`
	MinFree  int64         `yaml:"min_free" unit:"bytes" min:"0" help:"Space that the store leaves free on its file system; with less it keeps nothing until there is more."`
	Metrics  Metrics       `yaml:"metrics" help:"Metric history."`
	Events   Events        `yaml:"events" help:"Events."`
}

// Metrics is the retention of metric history.
type Metrics struct {
	Retention time.Duration `yaml:"retention" min:"1h" help:"Age at which metric history is deleted."`
	MaxSize   int64         `yaml:"max_size" unit:"bytes" min:"64MiB" help:"Size above which the oldest metric history is deleted."`
}

// Events is the retention of events.
type Events struct {
	Retention time.Duration `yaml:"retention" min:"1h" help:"Age at which events are deleted."`
	MaxSize   int64         `yaml:"max_size" unit:"bytes" min:"16MiB" help:"Size above which the oldest events are deleted."`
}

// Web configures access to the console and the API.
type Web struct {
	ConfigFile     string   `yaml:"config_file" flag:"web-config" help:"TLS and basic-auth settings, in the format of the Prometheus exporter toolkit."`
	TokenFile      string   `yaml:"token_file" flag:"web-token-file" help:"File with a bearer token; a request that carries it is let in."`
	AllowAnonymous bool     `yaml:"allow_anonymous" help:"Let everybody in who can reach the address, also from the network."`
	AllowedHosts   []string `yaml:"allowed_hosts" help:"Further names under which the console may be opened, as they stand in the browser's address bar."`
}

// Enrich configures what is added to events.
type Enrich struct {
	Redact         bool     `yaml:"redact" help:"Replace passwords, tokens and keys in command lines before they are kept."`
	RedactPatterns []string `yaml:"redact_patterns" check:"regexp" help:"Further regular expressions (RE2) of secrets in command lines, tried on one argument at a time: their groups are replaced, or the whole match when they have none."`
}

// Containers configures who is asked for the names of containers.
type Containers struct {
	Sources      []string      `yaml:"sources" enum:"docker,cri,podman,podman-store,kubelet" help:"Who is asked, where it is present; [] asks nobody."`
	Interval     time.Duration `yaml:"interval" min:"1s" max:"1h" help:"How often all containers are listed, beside the events in between."`
	DockerHost   string        `yaml:"docker_host" help:"Docker, as unix:///path or tcp://host:port; empty: its usual sockets."`
	CRIEndpoints []string      `yaml:"cri_endpoints" help:"Sockets of runtimes that speak CRI, as unix:///path; empty: the usual ones of containerd, CRI-O, k3s and cri-dockerd."`
	PodmanSocket string        `yaml:"podman_socket" help:"Podman's service, as unix:///path; empty: its usual socket. It is asked only about a container that podman's files do not tell of."`
	PodmanStores []string      `yaml:"podman_stores" help:"Directories of podman's storage and of its state, * standing for any name; empty: the usual ones of root and of users."`
	EventLabels  []string      `yaml:"event_labels" help:"Labels of containers and pods that events carry, * standing for any characters."`
	// Annotations hold whole configurations, so none is carried unless asked for.
	EventAnnotations  []string `yaml:"event_annotations" help:"Annotations that events carry, * standing for any characters."`
	MetricLabels      []string `yaml:"metric_labels" help:"Labels of containers and pods that huatuo_container_info carries, as label_<name>."`
	MetricAnnotations []string `yaml:"metric_annotations" help:"Annotations that huatuo_container_info carries, as annotation_<name>."`
	Kubelet           Kubelet  `yaml:"kubelet" help:"The kubelet, which knows pods where the runtime cannot be reached."`
}

// Kubelet configures how the kubelet is asked.
type Kubelet struct {
	URL       string `yaml:"url" help:"Where it answers, https://host:10250 (the secure port) or http://host:10255 (the read-only port); empty: on this machine, when there are pods."`
	TokenFile string `yaml:"token_file" help:"File with a bearer token, that of a service account; empty: the one that is mounted into the agent's own pod, if it runs in one."`
	CertFile  string `yaml:"cert_file" help:"File with a client certificate."`
	KeyFile   string `yaml:"key_file" help:"File with the key of the client certificate; empty: it is in cert_file."`
	CAFile    string `yaml:"ca_file" help:"File with the certificates that the kubelet's is checked against; empty: the system's."`
	Insecure  bool   `yaml:"insecure" help:"Do not check the kubelet's certificate, which it signs itself by default."`
}

// Budget configures what the agent may cost.
type Budget struct {
	Enforce  bool          `yaml:"enforce" reload:"true" help:"Give things up when the agent costs more than it may: details first, then sampling rates, then whole probes. Without it the cost is only measured."`
	Share    float64       `yaml:"share" min:"0.0001" max:"1" reload:"true" help:"Share of all CPUs of the machine that the agent and its BPF programs together may take."`
	Memory   int64         `yaml:"memory" unit:"bytes" min:"0" reload:"true" help:"Resident memory that the agent may have; 0: any."`
	Interval time.Duration `yaml:"interval" min:"2s" max:"10m" help:"How often it is measured. BPF programs are timed for one second of it, which makes them slower by some 50 ns a run meanwhile."`
	Calm     time.Duration `yaml:"calm" min:"1s" reload:"true" help:"How long the agent must have cost less than half of what it may before something comes back."`
	Keep     []string      `yaml:"keep" reload:"true" help:"Probes that are never ended for it."`
}

// Pipe configures the queues.
type Pipe struct {
	Queue int `yaml:"queue" min:"16" max:"1048576" help:"Events that may wait for one sink; beyond it the oldest are dropped and counted."`
}

// KnownIssue is an entry of known_issues.
type KnownIssue struct {
	Name    string   `yaml:"name" help:"What events are marked with: lower-case letters, digits and _."`
	Kinds   []string `yaml:"kinds" help:"Kinds of events that are looked at; empty: all."`
	Title   string   `yaml:"title" check:"regexp" help:"Regular expression (RE2) that the event's title matches."`
	Stack   string   `yaml:"stack" check:"regexp" help:"Regular expression that a function in one of the event's stacks matches."`
	Process string   `yaml:"process" check:"regexp" help:"Regular expression that the command name of the event's process matches."`
	Fields  []string `yaml:"fields" help:"Members of the event's fields, as name=regular expression."`
	Label   string   `yaml:"label" help:"What is known, a sentence."`
	URL     string   `yaml:"url" help:"Where more is told."`
	Action  string   `yaml:"action" enum:"label,suppress,off" default:"label" help:"label: mark the event. suppress: drop it; it counts as dropped, known_issue. off: do nothing, to turn off a built-in entry of that name."`
}

// probeConfig is probes.<name>.
type probeConfig struct {
	spec    probe.Spec
	enabled bool
	value   any // pointer to a copy of spec.Config; nil when it has none
}

// Default returns the configuration that an empty file gives. It panics when
// the configuration of a probe lacks a tag or has a member of a type that
// cannot be read from text.
func Default(specs []probe.Spec) *Config {
	c := &Config{
		Listen: "127.0.0.1:19704",
		Log:    Log{Level: "info", Format: "text"},
		Host:   Host{Root: "/"},
		Kernel: Kernel{Ring: "auto", Flavour: "auto"},
		Store: Store{
			Enabled: true,
			Dir:     "/var/lib/huatuo",
			// Five seconds shows a stall of one tick on a chart and costs a
			// third of Prometheus' usual 15 s in resolution, not in disk:
			// unchanged series compress to about a bit per sample.
			Interval: 5 * time.Second,
			// What other programs on a node with a full disk need more.
			MinFree: 64 << 20,
			Metrics: Metrics{Retention: 15 * day, MaxSize: 2 << 30},
			Events:  Events{Retention: 30 * day, MaxSize: 1 << 30},
		},
		Enrich: Enrich{Redact: true},
		Containers: Containers{
			Sources:     []string{"docker", "cri", "podman", "podman-store", "kubelet"},
			Interval:    30 * time.Second,
			EventLabels: []string{"*"},
		},
		// One per cent is what operators agree to without asking. Events that
		// explain an outage are worth it always, and cost nothing while there is none.
		Budget: Budget{Enforce: true, Share: 0.01, Memory: 256 << 20, Interval: 30 * time.Second, Calm: 10 * time.Minute,
			Keep: []string{"oomkill", "hungtask", "process"}},
		Pipe:     Pipe{Queue: 4096},
		Profiles: defaultProfiles(),
		Symbols:  defaultSymbols(),
		Sinks:    Sinks{Pyroscope: Pyroscope{Push: defaultPush()}, OTLPProfiles: OTLPProfiles{Push: defaultPush()}},
		origin:   map[string]string{},
	}
	for _, s := range specs {
		c.probes = append(c.probes, &probeConfig{spec: s, enabled: true, value: copyOf(s.Config)})
	}
	c.keys() // panics on a bad tag
	return c
}

// Load reads the file at path (none when path is empty), then the HUATUO_…
// variables of env (as os.Environ gives them), then flags, whose keys are
// configuration keys ("store.dir") and whose values have the text form of an
// environment variable. It reports every mistake that it finds, not only the
// first.
func Load(path string, env []string, flags map[string]string, specs []probe.Spec) (*Config, error) {
	var data []byte
	if path != "" {
		var err error
		if data, err = readFile(path); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return parse(path, data, env, flags, specs)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes: this is not a configuration file", path, maxFile)
	}
	return data, nil
}

func parse(path string, data []byte, env []string, flags map[string]string, specs []probe.Spec) (*Config, error) {
	c := Default(specs)
	errs := c.applyFile(path, data)
	errs = append(errs, c.applyEnv(env)...)
	errs = append(errs, c.applyFlags(flags)...)
	errs = append(errs, c.validate()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// applyEnv sets keys from HUATUO_… variables. An unknown one is a warning and
// not an error: a Kubernetes service named huatuo puts HUATUO_SERVICE_HOST and
// more into every pod of its namespace.
func (c *Config) applyEnv(env []string) []error {
	byName := map[string]key{}
	for _, k := range c.keys() {
		byName[k.env()] = k
	}
	var errs []error
	for _, e := range env {
		name, text, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) || name == EnvPath {
			continue
		}
		k, ok := byName[name]
		if !ok {
			c.Warnings = append(c.Warnings, fmt.Sprintf("environment variable %s is ignored: no such configuration key", name))
			continue
		}
		if err := k.setText(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		c.origin[k.name] = name
	}
	return errs
}

func (c *Config) applyFlags(flags map[string]string) []error {
	var errs []error
	left := len(flags)
	names := make([]string, 0, len(flags))
	for _, k := range c.keys() {
		names = append(names, k.name)
		text, ok := flags[k.name]
		if !ok {
			continue
		}
		left--
		if err := k.setText(text); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", k.name, k.flag(), err))
			continue
		}
		c.origin[k.name] = k.flag()
	}
	if left == 0 {
		return errs
	}
	for _, n := range sortedKeys(flags) {
		if !contains(names, n) {
			errs = append(errs, fmt.Errorf("unknown configuration key %q%s", n, didYouMean(n, names)))
		}
	}
	return errs
}

// Origin tells where the value of a key comes from: "default", file:line, a
// variable or a flag.
func (c *Config) Origin(name string) string {
	if o, ok := c.origin[name]; ok {
		return o
	}
	return "default"
}

// Probe returns whether the probe of that name is enabled, and its
// configuration, which has the type of its Spec.Config.
func (c *Config) Probe(name string) (cfg any, enabled bool) {
	for _, p := range c.probes {
		if p.spec.Name == name {
			return deref(p.value), p.enabled
		}
	}
	return nil, false
}
