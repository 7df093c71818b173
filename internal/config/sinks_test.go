package config

import (
	"strings"
	"testing"
)

func TestSinks(t *testing.T) {
	const on = "profiles: {enabled: true}\n"
	for _, tt := range []struct {
		what, file string
		want       string // in the error; empty: none
	}{
		{"nothing", "", ""},
		{"a server", on + "sinks: {pyroscope: {url: 'http://p:4040', labels: [env=prod, zone=a], tenant: t}}", ""},
		{"both", on + "sinks: {pyroscope: {url: 'https://p'}, otlp_profiles: {url: 'https://p/v1development/profiles', username: me, password_file: /f}}", ""},
		{"without profiles", "profiles: {enabled: false}\nsinks: {pyroscope: {url: 'http://p:4040'}}", "sinks.pyroscope.url (huatuo.yaml:2): there are no profiles to send: set profiles.enabled"},
		{"no scheme", on + "sinks: {otlp_profiles: {url: 'p:4040'}}", `sinks.otlp_profiles.url (huatuo.yaml:2): "p:4040" is not an address`},
		{"a password in it", on + "sinks: {pyroscope: {url: 'http://a:b@p'}}", "write no password into it"},
		{"token and user", "sinks: {pyroscope: {token_file: /t, username: me}}", "keep one of them"},
		{"password alone", "sinks: {pyroscope: {password_file: /t}}", "name the user"},
		{"key alone", "sinks: {pyroscope: {key_file: /t}}", "name the certificate"},
		{"label without a value", "sinks: {pyroscope: {labels: [env]}}", `"env": write name=value`},
		{"bad name", "sinks: {pyroscope: {labels: [a-b=c]}}", "write name=value"},
		{"our label", "sinks: {pyroscope: {labels: [pod=c]}}", "the agent's own"},
		{"private label", "sinks: {pyroscope: {labels: [__name__=c]}}", "the agent's own"},
		{"twice", "sinks: {otlp_profiles: {labels: [a=b, a=c]}}", "twice"},
		{"no label of ours", "sinks: {pyroscope: {group_by: [pid]}}", `"pid" is not one of namespace`},
		{"too often", "sinks: {pyroscope: {interval: 10ms}}", "less than the minimum"},
		{"typo", "sinks: {pyroscope: {uri: x}}", `did you mean "url"?`},
	} {
		_, err := parse("/etc/huatuo/huatuo.yaml", []byte(tt.file), nil, nil, nil)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.what, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v; want %q", tt.what, err, tt.want)
		}
	}
}
