package naming

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Kubelet says how the kubelet is asked.
type Kubelet struct {
	// URL is https://host:10250 (the secure port) or http://host:10255 (the
	// read-only port). Empty means both on this machine, the secure one first
	// when there is something to identify with.
	URL       string
	TokenFile string // of a service account; read anew for each question, because it is renewed
	CertFile  string // client certificate, with KeyFile; read anew for each connection
	KeyFile   string
	CAFile    string // who signed the kubelet's certificate; empty means the system's
	Insecure  bool   // do not check the kubelet's certificate, which is self-signed by default
}

const (
	securePort   = "https://127.0.0.1:10250"
	readOnlyPort = "http://127.0.0.1:10255"
	// kubeletGap is the least time between two questions for all pods: the
	// kubelet itself looks for changes once a second.
	kubeletGap = time.Second
)

// kubelet answers with all pods of the node, and to nothing less.
type kubelet struct {
	c *client
	k Kubelet

	mu    sync.Mutex
	at    time.Time
	last  map[string]Container
	turns int // questions asked, for tests
}

func openKubelet(ctx context.Context, k Kubelet) (Source, error) {
	if k.URL != "" {
		return tryKubelet(ctx, k, k.URL)
	}
	var errs []error
	if k.TokenFile != "" || k.CertFile != "" {
		s, err := tryKubelet(ctx, k, securePort)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	s, err := tryKubelet(ctx, Kubelet{}, readOnlyPort)
	if err == nil {
		return s, nil
	}
	return nil, errors.Join(append(errs, err)...)
}

func tryKubelet(ctx context.Context, k Kubelet, url string) (Source, error) {
	t := &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	switch {
	case strings.HasPrefix(url, "https://"):
		cfg, err := k.tls()
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = cfg
	case strings.HasPrefix(url, "http://"):
		if k.TokenFile != "" { // it would go over the wire in the clear
			k.TokenFile = ""
		}
	default:
		return nil, fmt.Errorf("%q is not https://host:port or http://host:port", url)
	}
	s := &kubelet{k: k, c: &client{base: strings.TrimSuffix(url, "/"), http: &http.Client{Transport: bearer{t, k.TokenFile}}}}
	if _, err := s.List(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("ask the kubelet at %s: %w", url, err)
	}
	return s, nil
}

func (k Kubelet) tls() (*tls.Config, error) {
	// The user may say that the kubelet's certificate proves nothing: by
	// default it is signed by the kubelet itself.
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: k.Insecure}
	if k.CAFile != "" {
		pem, err := os.ReadFile(k.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA of the kubelet: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA of the kubelet: no certificate in %s", k.CAFile)
		}
	}
	if k.CertFile == "" {
		return cfg, nil
	}
	key := or(k.KeyFile, k.CertFile) // the kubelet's own has both in one file
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(k.CertFile, key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate for the kubelet: %w", err)
		}
		return &c, nil
	}
	return cfg, nil
}

// bearer adds a service account's token.
type bearer struct {
	next http.RoundTripper
	file string
}

// RoundTrip sends r with the token.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.file == "" {
		return b.next.RoundTrip(r)
	}
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, fmt.Errorf("read the token for the kubelet: %w", err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return b.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (b bearer) CloseIdleConnections() {
	if t, ok := b.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// Close gives back connections.
func (s *kubelet) Close() { s.c.close() }

// podList is what is used of a v1.PodList.
type podList struct {
	Items []struct {
		Metadata struct {
			Name, Namespace, UID string
			Labels, Annotations  map[string]string
		}
		Status struct {
			QOSClass                                                             string
			InitContainerStatuses, ContainerStatuses, EphemeralContainerStatuses []containerStatus
		}
	}
}

type containerStatus struct {
	Name, Image, ContainerID string
	RestartCount             int
	State                    struct {
		Running *struct{ StartedAt time.Time }
	}
}

// List returns the pods, and their containers in whatever state.
func (s *kubelet) List(ctx context.Context) ([]Container, error) {
	s.mu.Lock()
	s.turns++
	s.mu.Unlock()
	var list podList
	if err := s.c.get(ctx, "/pods", &list); err != nil {
		return nil, err
	}
	out := list.containers()
	last := make(map[string]Container, len(out))
	for _, c := range out {
		last[c.ID] = c
	}
	s.mu.Lock()
	s.last, s.at = last, time.Now()
	s.mu.Unlock()
	return out, nil
}

func (l *podList) containers() []Container {
	var out []Container
	for i := range l.Items {
		m, st := &l.Items[i].Metadata, &l.Items[i].Status
		pod := Container{
			Namespace: m.Namespace, Pod: m.Name, PodUID: m.UID, QoS: strings.ToLower(st.QOSClass),
			Labels: plain(m.Labels), Annotations: plain(m.Annotations),
		}
		// A static pod's cgroup has the hash of its manifest for a uid. Once
		// an API server mirrors it, the kubelet gives the mirror's uid.
		if hash := m.Annotations["kubernetes.io/config.hash"]; hash != "" && hash != m.UID {
			static := pod
			static.PodUID = hash
			out = append(out, static)
		}
		out = append(out, pod)
		for _, states := range [][]containerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
			for _, x := range states {
				if c, ok := x.container(pod); ok {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

func (x *containerStatus) container(pod Container) (Container, bool) {
	scheme, id, ok := strings.Cut(x.ContainerID, "://") // containerd://<64 digits>
	if !ok || id == "" {
		return Container{}, false // not started yet
	}
	c := pod
	c.ID, c.Name, c.Image, c.Runtime, c.Restarts = id, x.Name, x.Image, scheme, x.RestartCount
	if r := x.State.Running; r != nil {
		c.Started = r.StartedAt
	}
	return c, true
}

// Inspect returns one container, asking for all pods at most once a second.
func (s *kubelet) Inspect(ctx context.Context, id string) (Container, error) {
	s.mu.Lock()
	c, ok := s.last[id]
	fresh := time.Since(s.at) < kubeletGap
	s.mu.Unlock()
	if !ok && !fresh {
		if _, err := s.List(ctx); err != nil {
			return Container{}, err
		}
		s.mu.Lock()
		c, ok = s.last[id]
		s.mu.Unlock()
	}
	if !ok {
		return Container{}, ErrUnknown
	}
	return c, nil
}

// Watch is not offered by the kubelet.
func (s *kubelet) Watch(context.Context, func(), func(string)) error {
	return fmt.Errorf("the kubelet has no stream: %w", errors.ErrUnsupported)
}
