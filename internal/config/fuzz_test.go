package config

import (
	"testing"
)

// FuzzParse: no input panics, and what loads is printed as a file that loads
// to the same configuration.
func FuzzParse(f *testing.F) {
	f.Add([]byte("listen: :1\nstore: {interval: 5s, metrics: {retention: 15d, max_size: 1GiB}}\n"), "", "")
	f.Add([]byte("probes: {sched: {skip: ['a,b', \"\\n\"], cpus: [1], ratio: 1e-3}}\n"), "PROBES_SCHED_DEEP_ON=true", "a: b # c")
	f.Add([]byte("a: &x [*x]\nlog: *x\n<<: {b: 1}\n"), "LISTEN=", "~")
	f.Add([]byte("listen: :1\n...\n--- \n"), "LOG_LEVEL=\xff", "- x")
	f.Add(Sample(specs()), "KERNEL_HOOKS=kprobe,,", "0x10")
	f.Fuzz(func(t *testing.T, data []byte, env, name string) {
		c, err := parse("f", data, []string{envPrefix + env}, map[string]string{"host.name": name}, specs())
		if err != nil {
			return
		}
		w := writer{}
		w.section(c.tree(), 0)
		again, err := parse("f", w.Bytes(), nil, nil, specs())
		if err != nil {
			t.Fatalf("printed configuration does not load: %v\n%s", err, w.Bytes())
		}
		if d := Diff(c, again); len(d) != 0 {
			t.Fatalf("printing changed %+v\n%s", d, w.Bytes())
		}
	})
}
