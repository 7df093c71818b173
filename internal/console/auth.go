package console

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	yaml "go.yaml.in/yaml/v2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// minToken is what a token must have at least: 16 random bytes in hex are 32
// characters; shorter than 16 can be guessed over a network.
const minToken = 16

// maxKnown bounds the remembered logins. A node has a handful.
const maxKnown = 256

// credentials decides who may use the API. The zero value lets everybody in.
//
// The web configuration file has the format of Prometheus' exporter-toolkit.
// The toolkit's own server is not used, because it asks for a credential on
// every path, and /metrics, /healthz and /readyz answer without.
type credentials struct {
	config *watched[webConfig]
	token  *watched[[sha256.Size]byte]
	demand bool // nobody gets in without, also when a changed file has no user any more

	bcrypts sync.Mutex // one bcrypt at a time: a flood of wrong passwords takes one core, not all
	mu      sync.Mutex
	seed    [16]byte
	known   map[[sha256.Size]byte]struct{} // logins that bcrypt has let in; a flood of wrong ones leaves no trace
}

// webConfig is the parsed file.
type webConfig struct {
	toolkit.Config
	limiter *rate.Limiter
}

// newCredentials reads both files; an empty path means that there is none.
func newCredentials(configFile, tokenFile string, log *slog.Logger) (*credentials, error) {
	c := &credentials{known: map[[sha256.Size]byte]struct{}{}}
	if _, err := rand.Read(c.seed[:]); err != nil {
		return nil, fmt.Errorf("make seed: %w", err)
	}
	var err error
	if configFile != "" {
		if c.config, err = watch(configFile, readWebConfig, log); err != nil {
			return nil, fmt.Errorf("read web.config_file: %w", err)
		}
	}
	if tokenFile != "" {
		if c.token, err = watch(tokenFile, readToken, log); err != nil {
			return nil, fmt.Errorf("read web.token_file: %w", err)
		}
	}
	return c, nil
}

func readWebConfig(path string) (webConfig, error) {
	// Validate reads the file as the toolkit's own server does, certificates
	// and password hashes included.
	if err := toolkit.Validate(path); err != nil {
		return webConfig{}, masked(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return webConfig{}, err
	}
	c := webConfig{toolkit.Config{
		TLSConfig:  toolkit.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13},
		HTTPConfig: toolkit.HTTPConfig{HTTP2: true},
	}, nil}
	if err := yaml.UnmarshalStrict(text, &c.Config); err != nil {
		return webConfig{}, masked(err)
	}
	c.TLSConfig.SetDirectory(filepath.Dir(path))
	if l := c.RateLimiterConfig; l.Interval != 0 {
		c.limiter = rate.NewLimiter(rate.Every(l.Interval), l.Burst)
	}
	return c, nil
}

// masked hides the values that an error of the YAML parser quotes: one may be
// a secret in the wrong place.
func masked(err error) error {
	parts := strings.Split(err.Error(), "`")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "…"
	}
	return errors.New(strings.Join(parts, "`"))
}

func readToken(path string) ([sha256.Size]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	text = bytes.TrimSpace(text)
	if len(text) < minToken {
		return [sha256.Size]byte{}, fmt.Errorf("%s: a token needs at least %d characters; make one with: openssl rand -hex 32", path, minToken)
	}
	return sha256.Sum256(text), nil
}

// required tells whether anything has to be shown to get in.
func (c *credentials) required() bool { return c.demand || c.configured() }

// configured tells whether there is anything that could be shown.
func (c *credentials) configured() bool {
	return c.token != nil || c.users() || c.clientCerts()
}

func (c *credentials) users() bool { return c.config != nil && len(c.config.get().Users) > 0 }

// clientCerts tells whether TLS itself turns strangers away.
func (c *credentials) clientCerts() bool {
	return c.config != nil && c.config.get().TLSConfig.ClientAuth == "RequireAndVerifyClientCert"
}

// allow tells whether r carries a valid credential, or needs none. Where TLS
// has verified a client certificate and there are neither users nor a token,
// the certificate is the credential.
func (c *credentials) allow(r *http.Request) bool {
	if c.token == nil && !c.users() {
		return !c.demand || c.clientCerts()
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return c.tokenIs(strings.TrimSpace(token))
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	// A browser cannot send a bearer token by itself: it may be typed as the
	// password, under any name.
	return c.tokenIs(password) || c.login(user, password)
}

func (c *credentials) tokenIs(token string) bool {
	if c.token == nil {
		return false
	}
	want, got := c.token.get(), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// login checks a user of the web configuration file. Unknown users cost the
// same time as known ones.
func (c *credentials) login(user, password string) bool {
	if !c.users() {
		return false
	}
	users := c.config.get().Users
	hash, exists := users[user]
	if !exists {
		for _, other := range users { // anybody's hash costs what a real one does
			hash = other
			break
		}
	}
	key := c.key(user, string(hash), password)
	c.mu.Lock()
	_, known := c.known[key]
	c.mu.Unlock()
	if known {
		return true
	}
	c.bcrypts.Lock()
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	c.bcrypts.Unlock()
	if err != nil || !exists {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnown {
		clear(c.known)
	}
	c.known[key] = struct{}{}
	return true
}

// key identifies a login without keeping it. The hash is part of it, so a
// changed password ends what was remembered.
func (c *credentials) key(parts ...string) [sha256.Size]byte {
	b := append([]byte(nil), c.seed[:]...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return sha256.Sum256(b)
}

// challenges are the WWW-Authenticate headers of a refusal.
func (c *credentials) challenges() []string {
	out := []string{`Basic realm="huatuo", charset="UTF-8"`}
	if c.token != nil {
		out = append(out, `Bearer realm="huatuo"`)
	}
	return out
}

// headers are those that the web configuration file adds.
func (c *credentials) headers() map[string]string {
	if c.config == nil {
		return nil
	}
	return c.config.get().HTTPConfig.Header
}

// limited tells whether the rate limit of the web configuration file is exceeded.
func (c *credentials) limited() bool {
	if c.config == nil {
		return false
	}
	l := c.config.get().limiter
	return l != nil && !l.Allow()
}

func (c *credentials) encrypted() bool {
	if c.config == nil {
		return false
	}
	now := c.config.get()
	return now.TLSConfig.IsEnabled()
}

// tlsConfig returns nil when the file does not ask for TLS. Later connections
// get what the file says then; certificates are read for each handshake.
func (c *credentials) tlsConfig() (*tls.Config, error) {
	if c.config == nil {
		return nil, nil
	}
	first := c.config.get()
	if !first.TLSConfig.IsEnabled() {
		return nil, nil
	}
	protos := []string{"http/1.1"}
	if first.HTTPConfig.HTTP2 {
		protos = []string{"h2", "http/1.1"}
	}
	conf := func() (*tls.Config, error) {
		now := c.config.get()
		t, err := toolkit.ConfigToTLSConfig(&now.TLSConfig)
		if err != nil {
			return nil, fmt.Errorf("read TLS of web.config_file: %w", err)
		}
		t.NextProtos = protos
		return t, nil
	}
	t, err := conf()
	if err != nil {
		return nil, err
	}
	t.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return conf() }
	return t, nil
}

// watched is a file that is read again when it changes. A change that cannot
// be read is logged, and what was read before stays in force: a typo must
// neither open the door nor lock everybody out.
type watched[T any] struct {
	path string
	read func(path string) (T, error)
	log  *slog.Logger

	mu     sync.Mutex
	value  T
	info   os.FileInfo
	looked time.Time
	failed string // the last error, logged once
}

// lookEvery bounds the stats: one a second is nothing, and one second is how
// long a revoked password may still work.
const lookEvery = time.Second

func watch[T any](path string, read func(string) (T, error), log *slog.Logger) (*watched[T], error) {
	w := &watched[T]{path: path, read: read, log: log, looked: time.Now()}
	var err error
	// Stat first: a file that changes in between is then read once more.
	if w.info, err = os.Stat(path); err != nil {
		return nil, err
	}
	w.value, err = read(path)
	return w, err
}

func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) >= lookEvery {
		w.looked = time.Now()
		w.look()
	}
	return w.value
}

func (w *watched[T]) look() {
	info, err := os.Stat(w.path)
	if err == nil {
		if os.SameFile(info, w.info) && info.ModTime().Equal(w.info.ModTime()) && info.Size() == w.info.Size() {
			return
		}
		var v T
		if v, err = w.read(w.path); err == nil {
			w.value, w.info, w.failed = v, info, ""
			w.log.Info("read changed file", "file", w.path)
			return
		}
	}
	if err.Error() != w.failed {
		w.failed = err.Error()
		w.log.Error("read changed file", "file", w.path, "error", err, "note", "what it said before stays in force")
	}
}
