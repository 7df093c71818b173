// Package containers has real container runtimes run real containers, and looks
// at what the agent calls them. Each runtime has a directory, a socket and a
// state of its own, and nothing that was there before is touched: TestMain
// compares the host before and after, and puts back what differs.
//
// It needs root and what .ci/deps installs. `make k8stest` adds a kubelet, which
// is built once.
package containers
