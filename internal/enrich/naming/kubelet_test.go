package naming

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const kubeletApp = "18cdd8b8dff231c14d187b5fb06af061b5c8f199aebd64d4d8a20189451d6a40"

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue writes a certificate and its key into one file, as the kubelet does.
func (a *authority) issue(name string) (file string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&b, &pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	file = filepath.Join(a.t.TempDir(), name+".pem")
	put(a.t, file, b.Bytes())
	return file
}

// kubeletServer is a kubelet's secure port: it wants a client certificate of its
// authority or a token.
func (a *authority) kubeletServer(token string, pods []byte) *httptest.Server {
	a.t.Helper()
	file := a.issue("kubelet")
	cert, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.parsed())
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.TLS.VerifiedChains) == 0 && r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		case r.URL.Path == "/pods":
			w.Write(pods)
		default:
			http.NotFound(w, r)
		}
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	srv.StartTLS()
	a.t.Cleanup(srv.Close)
	return srv
}

func (a *authority) parsed() *x509.Certificate {
	block, _ := pem.Decode(readFile(a.t, a.file))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func TestKubeletAccess(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	secure := ca.kubeletServer("s3cret", recorded(t, "kubelet/pods.json"))
	readOnly := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went over the wire in the clear")
		}
		w.Write(recorded(t, "kubelet/pods.json"))
	}))
	defer readOnly.Close()
	token, wrong := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "wrong")
	put(t, token, []byte("s3cret\n"))
	put(t, wrong, []byte("guess"))
	client := ca.issue("client")

	for what, tt := range map[string]struct {
		k    Kubelet
		want string // in the error; empty: it works
	}{
		"token":                {Kubelet{URL: secure.URL, TokenFile: token, CAFile: ca.file}, ""},
		"token, unchecked":     {Kubelet{URL: secure.URL, TokenFile: token, Insecure: true}, ""},
		"certificate":          {Kubelet{URL: secure.URL, CertFile: client, KeyFile: client, CAFile: ca.file}, ""},
		"certificate with key": {Kubelet{URL: secure.URL, CertFile: client, CAFile: ca.file}, ""},
		"read-only port":       {Kubelet{URL: readOnly.URL, TokenFile: token}, ""},
		"nothing":              {Kubelet{URL: secure.URL, CAFile: ca.file}, "401"},
		"wrong token":          {Kubelet{URL: secure.URL, TokenFile: wrong, CAFile: ca.file}, "401"},
		"no token file":        {Kubelet{URL: secure.URL, TokenFile: token + "x", CAFile: ca.file}, "read the token"},
		"system's authorities": {Kubelet{URL: secure.URL, TokenFile: token}, "certificate"},
		"other authority":      {Kubelet{URL: secure.URL, TokenFile: token, CAFile: stranger.file}, "certificate"},
		"other's certificate":  {Kubelet{URL: secure.URL, CertFile: stranger.issue("x"), CAFile: ca.file}, "certificate"},
		"no CA in the file":    {Kubelet{URL: secure.URL, CAFile: token}, "no certificate in"},
		"no URL":               {Kubelet{URL: "localhost:10250"}, "https://host:port"},
	} {
		s, err := openKubelet(shortly(t), tt.k)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", what, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if c, err := s.Inspect(shortly(t), kubeletApp); err != nil || c.Pod != "web-node1" {
			t.Errorf("%s: %+v %v", what, c, err)
		}
		s.Close()
	}
}

// TestKubeletTokenRenewed: the token is another one after an hour.
func TestKubeletTokenRenewed(t *testing.T) {
	ca := newAuthority(t)
	token := filepath.Join(t.TempDir(), "token")
	put(t, token, []byte("second"))
	srv := ca.kubeletServer("second", recorded(t, "kubelet/pods.json"))
	k := Kubelet{URL: srv.URL, TokenFile: token, CAFile: ca.file}
	s, err := openKubelet(shortly(t), k)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, token, []byte("first"))
	if _, err := s.List(shortly(t)); err == nil {
		t.Fatal("an old token was taken")
	}
	put(t, token, []byte("second"))
	if _, err := s.List(shortly(t)); err != nil {
		t.Error(err)
	}
}

func kubeletOf(t *testing.T, pods []byte) *kubelet {
	t.Helper()
	srv := httptest.NewServer(bytesOf(pods))
	t.Cleanup(srv.Close)
	s, err := openKubelet(shortly(t), Kubelet{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.(*kubelet)
}

func TestKubeletPods(t *testing.T) {
	s := kubeletOf(t, recorded(t, "kubelet/pods.json"))
	list, err := s.List(shortly(t))
	if err != nil {
		t.Fatal(err)
	}
	byID, pods := map[string]Container{}, map[string]Container{}
	for _, c := range list {
		if c.ID == "" {
			pods[c.PodUID] = c
		} else {
			byID[c.ID] = c
		}
	}
	if len(pods) != 3 || len(byID) != 4 {
		t.Errorf("%d pods, %d containers", len(pods), len(byID))
	}
	want := Container{
		ID: kubeletApp, Name: "app", Namespace: "team-a", Pod: "web-node1", PodUID: staticUID, QoS: "burstable",
		Image: "localhost/busybox:1", Runtime: "containerd", Started: time.Date(2026, 11, 22, 16, 21, 25, 0, time.UTC),
		Labels: map[string]string{"app": "web", "tier": "front"}, Annotations: map[string]string{"example.com/owner": "alice"},
	}
	if diff := cmp.Diff(want, byID[kubeletApp]); diff != "" {
		t.Error(diff)
	}
	if p := pods[staticUID]; p.Pod != "web-node1" || p.Namespace != "team-a" {
		t.Errorf("pod %+v", p)
	}
	classes := map[string]bool{}
	for _, p := range pods {
		classes[p.QoS] = true
	}
	if !classes["guaranteed"] || !classes["burstable"] || !classes["besteffort"] {
		t.Errorf("classes %v", classes)
	}
	restarts := 0
	for _, c := range byID {
		restarts = max(restarts, c.Restarts)
	}
	if restarts == 0 {
		t.Error("none of the containers was restarted")
	}
}

// TestKubeletAsked: one container costs a question for all pods, so a second one
// is answered from the first.
func TestKubeletAsked(t *testing.T) {
	s := kubeletOf(t, recorded(t, "kubelet/pods.json"))
	for range 10 {
		if _, err := s.Inspect(shortly(t), webID); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	if s.turns > 1 {
		t.Errorf("asked %d times in a moment", s.turns)
	}
	s.at = s.at.Add(-kubeletGap)
	s.Inspect(shortly(t), webID)
	if s.turns != 2 {
		t.Errorf("asked %d times, want 2", s.turns)
	}
}

// TestKubeletMirror: a static pod that an API server mirrors has the mirror's
// uid, and its cgroup the hash of its manifest.
func TestKubeletMirror(t *testing.T) {
	s := kubeletOf(t, []byte(`{"items":[{"metadata":{"name":"etcd-n1","namespace":"kube-system","uid":"7f4b3a1c-8e0d-4f53-9a7e-2b1c5d6e7f80",
		"annotations":{"kubernetes.io/config.hash":"`+staticUID+`"}},"status":{"qosClass":"Burstable","containerStatuses":[{"name":"waiting"}]}}]}`))
	list, err := s.List(shortly(t))
	if err != nil || len(list) != 2 || list[0].PodUID != staticUID || list[1].PodUID != "7f4b3a1c-8e0d-4f53-9a7e-2b1c5d6e7f80" {
		t.Errorf("%+v %v", list, err)
	}
}

// TestKubeletPlaces: without an address it is looked for where pods are seen only.
func TestKubeletPlaces(t *testing.T) {
	p := Places{Pods: func() bool { return false }}
	if _, err := p.openKubelet(context.Background()); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "no pods") {
		t.Errorf("without pods: %v", err)
	}
}

func FuzzPodList(f *testing.F) {
	f.Add(recorded(f, "kubelet/pods.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l podList
		if json.Unmarshal(b, &l) != nil {
			return
		}
		for _, c := range l.containers() {
			if c.Partial {
				t.Errorf("%+v", c)
			}
		}
	})
}
