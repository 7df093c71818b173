package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRules: a real Prometheus scrapes the agent and evaluates
// deploy/prometheus-rules, with classic histograms and with native ones. No
// rule fails, and those about what every host has give values.
func TestRules(t *testing.T) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("needs prometheus: apt-get install prometheus")
	}
	a := start(t)
	workload(t)
	stop := refuse(t)
	defer stop()
	for _, c := range []struct{ name, flag string }{{"classic", "promql-at-modifier"}, {"native", "native-histograms"}} {
		t.Run(c.name, func(t *testing.T) {
			p := scraper(t, prometheus, c.flag, strings.TrimPrefix(a.url, "http://"))
			a.eventually(60*time.Second, "rules", func() error { return evaluated(p) })
			for _, expr := range []string{
				"instance:huatuo_runqueue_wait_seconds:p99_rate5m > 0", "instance:huatuo_cpu_busy:ratio_rate5m > 0", "instance:huatuo_memory_available:ratio > 0",
				"huatuo_bamai_cpu_util_total > 0", `sum(huatuo_bamai_runqlat_latency{zone="0"}) > 100`, "huatuo_bamai_memory_vmstat_nr_free_pages > 0",
				`count(huatuo_bamai_sockstat_TCP_inuse{host="127.0.0.1"}) > 0`,
			} {
				a.eventually(30*time.Second, expr, func() error { return has(p, expr) })
			}
			time.Sleep(4 * time.Second) // two rounds with data
			if err := evaluated(p); err != nil {
				t.Error(err)
			}
		})
	}
}

// scraper runs a Prometheus that scrapes the agent each second, and returns its URL.
func scraper(t *testing.T, prometheus, feature, agent string) string {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("../../deploy/prometheus-rules")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 2s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: huatuo\n    static_configs: [{targets: [%q]}]\n",
		rules+"/*.yaml", agent)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	var log syncBuffer
	c := exec.Command(prometheus, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+addr, "--enable-feature="+feature)
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
		if t.Failed() {
			t.Logf("Prometheus' log:\n%s", log.String())
		}
	})
	return "http://" + addr
}

func ask(path string, into any) error {
	r, err := http.Get(path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(into)
}

// evaluated tells which rule has not been evaluated, or not without an error.
func evaluated(prometheus string) error {
	var r struct {
		Data struct {
			Groups []struct {
				File  string
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := ask(prometheus+"/api/v1/rules", &r); err != nil {
		return err
	}
	n := 0
	for _, g := range r.Data.Groups {
		for _, rule := range g.Rules {
			if rule.Health != "ok" {
				return fmt.Errorf("%s: %s is %s: %s", filepath.Base(g.File), rule.Name, rule.Health, rule.LastError)
			}
			n++
		}
	}
	if n < 250 {
		return fmt.Errorf("%d rules", n)
	}
	return nil
}

// has tells whether an expression gives something.
func has(prometheus, expr string) error {
	var r struct {
		Data struct{ Result []any }
	}
	if err := ask(prometheus+"/api/v1/query?query="+url.QueryEscape(expr), &r); err != nil {
		return err
	}
	if len(r.Data.Result) == 0 {
		return fmt.Errorf("nothing")
	}
	return nil
}
