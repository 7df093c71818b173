package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Sinks configures where profiles are sent to besides the store.
type Sinks struct {
	Pyroscope    Pyroscope    `yaml:"pyroscope" help:"A Pyroscope server that profiles are pushed to, as pprof."`
	OTLPProfiles OTLPProfiles `yaml:"otlp_profiles" help:"A server that takes OTLP profiles by HTTP. Their format is still in development (v1development) and may change with a version of either side: prefer sinks.pyroscope where there is a choice."`
}

// Pyroscope configures the push to a Pyroscope server.
type Pyroscope struct {
	URL  string `yaml:"url" help:"Where the server is, as http://pyroscope:4040; /push.v1.PusherService/Push is added to it. Empty: nothing is pushed. Needs profiles.enabled."`
	Push `yaml:",inline"`
}

// OTLPProfiles configures the export of OTLP profiles.
type OTLPProfiles struct {
	URL  string `yaml:"url" help:"Where they are sent to, the whole of it, as http://pyroscope:4040/v1development/profiles. Empty: none are sent. Needs profiles.enabled."`
	Push `yaml:",inline"`
}

// Push is what both ways of sending profiles have.
type Push struct {
	Interval     time.Duration `yaml:"interval" min:"1s" max:"10m" help:"How long samples are gathered before they are sent: the resolution in time that they have there."`
	Queue        int           `yaml:"queue" min:"1" max:"1024" help:"Requests of about 1 MiB that may wait for the server; beyond it the oldest are dropped and counted."`
	GroupBy      []string      `yaml:"group_by" enum:"namespace,pod,container,unit,process,thread" help:"Labels that tell series apart. More of them cost the server more; service_name and instance are always there."`
	Labels       []string      `yaml:"labels" help:"Further labels of every series, as name=value."`
	Tenant       string        `yaml:"tenant" help:"Tenant on the server, sent as X-Scope-OrgID; empty: none."`
	Username     string        `yaml:"username" help:"User for basic authentication; empty: none."`
	PasswordFile string        `yaml:"password_file" help:"File with the user's password. It is read for each request."`
	TokenFile    string        `yaml:"token_file" help:"File with a bearer token, instead of a user. It is read for each request."`
	CAFile       string        `yaml:"ca_file" help:"File with the certificates that the server's is checked against; empty: the system's."`
	CertFile     string        `yaml:"cert_file" help:"File with a client certificate."`
	KeyFile      string        `yaml:"key_file" help:"File with the key of the client certificate; empty: it is in cert_file."`
	Insecure     bool          `yaml:"insecure" help:"Do not check the server's certificate."`
}

// defaultPush is the same for both.
func defaultPush() Push {
	// Fifteen seconds is what Pyroscope's own agents push by.
	return Push{Interval: 15 * time.Second, Queue: 32, GroupBy: []string{"namespace", "pod", "container", "unit", "process"}}
}

// Label is one of Push.Labels, taken apart.
type Label struct{ Name, Value string }

// Pairs returns the further labels.
func (p *Push) Pairs() []Label {
	var out []Label
	for _, l := range p.Labels {
		name, value, _ := strings.Cut(l, "=")
		out = append(out, Label{name, value})
	}
	return out
}

// checkSinks checks what only makes sense together.
func (c *Config) checkSinks() []error {
	var errs []error
	for _, s := range []struct {
		name, url string
		push      *Push
	}{
		{"sinks.pyroscope", c.Sinks.Pyroscope.URL, &c.Sinks.Pyroscope.Push},
		{"sinks.otlp_profiles", c.Sinks.OTLPProfiles.URL, &c.Sinks.OTLPProfiles.Push},
	} {
		bad := func(key, format string, args ...any) {
			key = s.name + "." + key
			errs = append(errs, fmt.Errorf("%s (%s): %s", key, c.Origin(key), fmt.Sprintf(format, args...)))
		}
		if s.url != "" {
			u, err := url.Parse(s.url)
			switch {
			case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
				bad("url", "%q is not an address: write http://host:port or https://host:port", s.url)
			case u.User != nil:
				bad("url", "write no password into it: use username and password_file, or token_file")
			case !c.Profiles.Enabled:
				bad("url", "there are no profiles to send: set profiles.enabled")
			}
		}
		s.push.check(bad)
	}
	return errs
}

func (p *Push) check(bad func(key, format string, args ...any)) {
	switch {
	case p.TokenFile != "" && p.Username != "":
		bad("token_file", "there is a username as well: keep one of them")
	case p.PasswordFile != "" && p.Username == "":
		bad("password_file", "name the user it belongs to in username")
	}
	if p.KeyFile != "" && p.CertFile == "" {
		bad("key_file", "name the certificate it belongs to in cert_file")
	}
	name := regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	ours := []string{"service_name", "instance", "namespace", "pod", "container", "unit", "process", "thread"}
	seen := map[string]bool{}
	for _, l := range p.Labels {
		n, v, ok := strings.Cut(l, "=")
		switch {
		case !ok || v == "" || !name.MatchString(n):
			bad("labels", "%q: write name=value; letters, digits and _ stand in a name", l)
		case strings.HasPrefix(n, "__") || contains(ours, n):
			bad("labels", "%q: that label is the agent's own", n)
		case seen[n]:
			bad("labels", "%q is there twice", n)
		}
		seen[n] = true
	}
}
