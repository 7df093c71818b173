// Command soak runs the agent under mild mixed load for half an hour, watches
// what it holds, and writes a page of the docs that says whether that grows.
//
//	make soak [D=30m]
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	agent := flag.String("agent", "bin/huatuo", "binary to watch")
	out := flag.String("o", "", "file to write (default standard output)")
	d := flag.Duration("d", 30*time.Minute, "how long")
	flag.Parse()
	log.SetFlags(0)
	if os.Geteuid() != 0 {
		log.Fatal("soak: run as root: the agent loads BPF programs, and the load makes control groups")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := soak(ctx, *agent, *out, *d)
	if err != nil {
		log.Fatal("soak: ", err)
	}
	if !ok {
		log.Fatal("soak: the agent did not hold still, or lost events uncounted: see the page")
	}
}

// soak tells whether the agent passed.
func soak(ctx context.Context, agent, out string, d time.Duration) (bool, error) {
	data, err := os.MkdirTemp("", "huatuo-soak-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(data)
	a, err := start(agent, data)
	if err != nil {
		return false, err
	}
	defer a.end()
	if err := a.ready(ctx); err != nil {
		return false, err
	}
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var load sync.WaitGroup
	for _, l := range loads(a.url) {
		load.Go(func() { l.run(loadCtx) })
	}
	points, err := a.watch(ctx, d)
	stopLoad()
	load.Wait()
	if err != nil {
		return false, err
	}
	final, err := a.settle(context.WithoutCancel(ctx))
	if err != nil {
		return false, err
	}
	if err := a.end(); err != nil {
		return false, err
	}
	r := newReport(points[len(points)-1].at.Round(time.Minute), points, final, a.trouble())
	if out == "" {
		fmt.Print(r.page())
		return r.ok(), nil
	}
	return r.ok(), os.WriteFile(out, []byte(r.page()), 0o644)
}

// agent is the process that is watched.
type agent struct {
	cmd    *exec.Cmd
	url    string
	log    *lines
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

func start(binary, data string) (*agent, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	a := &agent{url: "http://" + addr, log: &lines{}, exited: make(chan struct{})}
	a.cmd = exec.Command(binary, "--listen", addr, "--data", data, "--set", "budget.enforce=false", "--set", "profiles.enabled=false")
	a.cmd.Stderr = a.log
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	go func() { a.err = a.cmd.Wait(); close(a.exited) }()
	return a, nil
}

func (a *agent) ready(ctx context.Context) error {
	for range 200 {
		if _, err := fetch(ctx, a.url+"/readyz"); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the agent is not ready after 20 s:\n%s", a.log)
}

// end stops the agent, and says how it ended.
func (a *agent) end() error {
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.exited:
		return a.err
	case <-time.After(10 * time.Second):
		a.cmd.Process.Kill()
		<-a.exited
		return fmt.Errorf("the agent did not end within 10 s of SIGTERM")
	}
}
