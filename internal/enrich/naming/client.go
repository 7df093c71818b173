package naming

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// maxAnswer bounds what is read of an answer: a node with 250 pods has
	// about 2 MB of them.
	maxAnswer = 64 << 20
	// askTime bounds one question. A runtime under load takes tens of
	// milliseconds; one that hangs must not hold a look-up for long.
	askTime = 2 * time.Second
	// listTime bounds a list, which grows with the node.
	listTime = 10 * time.Second
)

// client speaks HTTP and JSON over a unix socket or TCP.
type client struct {
	http *http.Client
	base string
}

// dial makes a client for unix:///path, tcp://host:port or http://host:port.
func dial(address string) (*client, error) {
	t := &http.Transport{MaxIdleConns: 4, IdleConnTimeout: time.Minute}
	c := &client{http: &http.Client{Transport: t}}
	scheme, rest, _ := strings.Cut(address, "://")
	switch {
	case scheme == "unix" && rest != "":
		c.base = "http://localhost" // a name is needed, and is not used
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", rest)
		}
	case (scheme == "tcp" || scheme == "http") && rest != "":
		c.base = "http://" + strings.TrimSuffix(rest, "/")
	default:
		return nil, fmt.Errorf("%q is not unix:///path or tcp://host:port", address)
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// open sends a GET. The caller closes the body.
func (c *client) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	r, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if r.StatusCode == http.StatusOK {
		return r.Body, nil
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(r.Body, 512))
	if r.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, b)
	}
	return nil, fmt.Errorf("get %s: %s: %s", path, r.Status, strings.TrimSpace(string(b)))
}

// get decodes the answer to a GET.
func (c *client) get(ctx context.Context, path string, into any) error {
	body, err := c.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return nil
}
