package containers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kubeletConfig has the kubelet stand alone: its pods are files.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: %[2]d
readOnlyPort: %[3]d
healthzPort: 0
staticPodPath: %[1]s/manifests
fileCheckFrequency: 1s
podLogsDir: %[1]s/podlogs
volumePluginDir: %[1]s/plugins
containerRuntimeEndpoint: unix://%[4]s
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
enableControllerAttachDetach: false
localStorageCapacityIsolation: false
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: "1Mi"}
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: %[1]s/ca.pem}
authorization: {mode: AlwaysAllow}
`

const staticPod = `apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  namespace: shop
  labels: {app: %[1]s}
  annotations: {example.com/owner: alice}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  restartPolicy: %[3]s
  containers:
  - name: app
    image: ` + imageName + `
    imagePullPolicy: Never
    command: ["/bin/sh", "-c", "%[2]s"]
    resources: {limits: {memory: 12Mi}, requests: {cpu: 10m}}
`

// kubeletNode is a running kubelet.
type kubeletNode struct {
	dir              string
	secure, readOnly int
	runtime          *criNode
}

// startKubelet runs the kubelet that HUATUO_KUBELET names.
func startKubelet(t *testing.T) *kubeletNode {
	t.Helper()
	exe := os.Getenv("HUATUO_KUBELET")
	if exe == "" {
		t.Skip("needs a kubelet: run `make k8stest`")
	}
	undoKubelet(t)
	k := &kubeletNode{runtime: startContainerd(t), dir: workDir(t), secure: freePort(t), readOnly: freePort(t)}
	for _, d := range []string{"manifests", "root"} {
		if err := os.Mkdir(filepath.Join(k.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeCertificates(t, k.dir)
	cfg := filepath.Join(k.dir, "kubelet.yaml")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, kubeletConfig, k.dir, k.secure, k.readOnly, k.runtime.socket), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon(t, exec.Command(exe, "--config", cfg, "--root-dir", k.dir+"/root", "--cert-dir", k.dir+"/pki", "--hostname-override", "node1"), func() error {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/pods", k.readOnly))
		if err == nil {
			r.Body.Close()
		}
		return err
	})
	return k
}

// undoKubelet puts back, at the end, what a kubelet changes of the host.
func undoKubelet(t *testing.T) {
	t.Helper()
	old := snapshot()
	paths := []string{"/usr/libexec/kubernetes", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/run/kubernetes"}
	before := map[string]bool{}
	for _, p := range paths {
		_, err := os.Lstat(p)
		before[p] = err == nil
	}
	t.Cleanup(func() {
		for _, what := range old.restore() {
			t.Log("put back:", what)
		}
		for _, table := range []string{"filter", "nat", "mangle"} {
			removeChains(table)
		}
		for _, p := range paths {
			if !before[p] {
				os.RemoveAll(p)
			}
		}
	})
}

// removeChains removes the chains of the kubelet, and the rules that lead there.
func removeChains(table string) {
	rules := strings.Split(output("iptables", "-t", table, "-S"), "\n")
	for _, r := range rules {
		if strings.HasPrefix(r, "-A ") && strings.Contains(r, "-j KUBE-") {
			exec.Command("sh", "-c", "iptables -t "+table+" -D "+strings.TrimPrefix(r, "-A ")).Run()
		}
	}
	for _, verb := range []string{"-F", "-X"} {
		for _, r := range rules {
			if chain, ok := strings.CutPrefix(r, "-N KUBE-"); ok {
				exec.Command("iptables", "-t", table, verb, "KUBE-"+chain).Run()
			}
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// writeCertificates writes ca.pem, which the kubelet trusts, and client.pem,
// which it has signed, with its key.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, by *x509.Certificate, pub *ecdsa.PublicKey, priv *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, by, pub, priv)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	client := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "huatuo"}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	caKey, clientKey := key(), key()
	secret, err := x509.MarshalECPrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"ca.pem":     sign(ca, ca, &caKey.PublicKey, caKey),
		"client.pem": append(sign(client, ca, &clientKey.PublicKey, caKey), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (k *kubeletNode) manifest(t *testing.T, name, script, restart string) {
	t.Helper()
	path := filepath.Join(k.dir, "manifests", name+".yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, staticPod, name, script, restart), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestKubelet asks a real kubelet about static pods: on its secure port with a
// client certificate, on its read-only port, and its runtime.
func TestKubelet(t *testing.T) {
	k := startKubelet(t)
	k.manifest(t, "web", "sleep 1000", "Always")
	for name, cfg := range map[string]string{
		"certificate": fmt.Sprintf("sources: [kubelet]\nkubelet:\n  url: https://127.0.0.1:%d\n  cert_file: %s/client.pem\n  insecure: true", k.secure, k.dir),
		"read-only":   fmt.Sprintf("sources: [kubelet]\nkubelet: {url: 'http://127.0.0.1:%d'}", k.readOnly),
		"runtime":     "sources: [cri]\ncri_endpoints: ['unix://" + k.runtime.socket + "']",
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, cfg+"\nevent_annotations: ['example.com/*']\ninterval: 2s")
			a.eventually(60*time.Second, "the static pod", func() error {
				_, body := a.get("/metrics")
				for _, l := range strings.Split(body, "\n") {
					if strings.HasPrefix(l, "huatuo_container_info{") && strings.Contains(l, `namespace="shop",pod="web-node1",container="app"`) &&
						strings.Contains(l, `image="`+imageName+`"`) && strings.Contains(l, `qos="burstable"`) {
						return nil
					}
				}
				return fmt.Errorf("no such series\n%s", grep(body, "huatuo_container_info{"))
			})
			eater := "eater-" + name
			k.manifest(t, eater, "sleep 3; tail /dev/zero", "Never")
			defer os.Remove(filepath.Join(k.dir, "manifests", eater+".yaml"))
			got := a.oomKillIn("shop", eater+"-node1")
			if got.Name != "app" || got.QoS != "burstable" || got.Image != imageName || got.Runtime != "containerd" || len(got.PodUID) != 32 {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(map[string]string{"app": eater}, got.Labels); diff != "" {
				t.Errorf("labels: %s", diff)
			}
			if diff := cmp.Diff(map[string]string{"example.com/owner": "alice"}, got.Annotations); diff != "" {
				t.Errorf("annotations: %s", diff)
			}
		})
	}
	os.Remove(filepath.Join(k.dir, "manifests", "web.yaml"))
}

func grep(text, start string) string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, start) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}
