package pyroscope

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// Client says where a server is and how to reach it.
type Client struct {
	URL          string
	Username     string
	PasswordFile string // read anew for each request: secrets are rotated
	TokenFile    string // likewise
	Tenant       string // X-Scope-OrgID
	CAFile       string
	CertFile     string
	KeyFile      string // empty: it is in CertFile
	Insecure     bool
}

// http returns a client that sends the credentials. It follows no redirect: the
// credentials are for this server.
func (c Client) http() (*http.Client, error) {
	conf, err := c.tls()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = conf
	t.MaxIdleConnsPerHost = 1 // requests go one after the other
	return &http.Client{
		Transport:     credentials{c, t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (c Client) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		key := c.KeyFile
		if key == "" {
			key = c.CertFile
		}
		pair, err := tls.LoadX509KeyPair(c.CertFile, key)
		if err != nil {
			return nil, fmt.Errorf("read cert_file: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// credentials adds to each request who sends it.
type credentials struct {
	c    Client
	next http.RoundTripper
}

// RoundTrip sends a request.
func (c credentials) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", "huatuo")
	if c.c.Tenant != "" {
		r.Header.Set("X-Scope-OrgID", c.c.Tenant)
	}
	switch {
	case c.c.TokenFile != "":
		token, err := secret(c.c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token_file: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	case c.c.Username != "":
		password := ""
		if c.c.PasswordFile != "" {
			var err error
			if password, err = secret(c.c.PasswordFile); err != nil {
				return nil, fmt.Errorf("read password_file: %w", err)
			}
		}
		r.SetBasicAuth(c.c.Username, password)
	}
	return c.next.RoundTrip(r)
}

func secret(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
