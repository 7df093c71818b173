package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bootLimit ends a guest that hangs. A whole run takes two minutes of an idle
// core; beside other work on the machine it may take five times as long.
const bootLimit = 25 * time.Minute

// memory of a guest: its root holds 350 MB of test binaries, twice while it is unpacked.
const memoryMB = 2048

// event is one thing that the guest tells on its console, the log apart.
type event struct {
	what string // UP, BEGIN, END, RESULT, DONE
	rest string
	line string // what: empty; a line of the log
}

// boot runs a guest until it powers off, hands each line of its console to f
// and keeps them in the file log.
func boot(ctx context.Context, k kernel, image, initrd, log string, f func(event)) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	args := append([]string{"-n", "10"}, qemu(k, image, initrd)...)
	cmd := exec.CommandContext(ctx, "nice", args...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return err
	}
	file, err := os.Create(log)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	done := readConsole(io.TeeReader(out, file), f)
	err = cmd.Wait()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the guest did not end within %v", bootLimit)
	case err != nil:
		return fmt.Errorf("qemu: %w", err)
	case !done:
		return errors.New("the guest went away before its tests were done: a panic, see the log")
	}
	return nil
}

// readConsole hands on lines until the console ends and tells whether the guest
// came to its end. Firmware may leave control characters before a line.
func readConsole(r io.Reader, f func(event)) (done bool) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := strings.TrimRight(s.Text(), "\r")
		if i := strings.Index(line, "@@"); i >= 0 {
			what, rest, _ := strings.Cut(line[i+2:], " ")
			switch what {
			case "UP", "BEGIN", "END", "RESULT", "DONE":
				done = done || what == "DONE"
				f(event{what: what, rest: rest})
				continue
			}
		}
		f(event{line: line})
	}
	return done
}

// qemu is the command line. Always TCG: a nested KVM costs more than it saves
// where it works at all, and tests must behave the same everywhere. One thread
// for all CPUs: with more, a CPU may run into the int3 that another has put
// there to patch a jump label and taken away again ("Oops: int3" in
// __schedule, while tracepoints go on and off).
func qemu(k kernel, image, initrd string) []string {
	machine, console := []string{"qemu-system-x86_64", "-M", "q35", "-cpu", "max"}, "ttyS0"
	if k.arch == "arm64" {
		machine, console = []string{"qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"}, "ttyAMA0"
	}
	// tsc=reliable: a guest whose host is busy gives up the TSC for a timer
	// that takes 100 times as long to read. loglevel=1: nothing but a panic may
	// break into the lines of the tests.
	line := "console=" + console + " panic=-1 tsc=reliable loglevel=1 cg=" + k.cgroup + " " + k.append
	if k.icount {
		machine = append(machine, "-icount", "shift=2") // 4 ns each, which is about what they take
	}
	machine = append(machine, memory(k)...)
	return append(machine, "-accel", "tcg,thread=single", "-smp", strconv.Itoa(k.cpus), "-m", strconv.Itoa(memoryMB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		// A disk that keeps its own health, and a port that can report errors.
		"-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on", "-device", "nvme,drive=disk,serial=huatuo",
		// One that warns: bit 2 says that it is no longer reliable.
		"-blockdev", "driver=null-co,node-name=worn,size=67108864,read-zeroes=on", "-device", "nvme,drive=worn,serial=worn,smart_critical_warning=4",
		"-device", "pcie-root-port,id=rp0,chassis=1,slot=1",
		"-kernel", image, "-initrd", initrd, "-append", strings.TrimSpace(line))
}

// slowMB is how much of a guest's memory is on the slow node, where it has one.
const slowMB = 384

// memory is of one node, or of two: one with the CPUs, and a slow one without,
// as memory behind CXL is. That it is slow the firmware's table of memory says.
func memory(k kernel) []string {
	if !k.slow {
		return nil
	}
	backend := func(id string, mb int) string { return fmt.Sprintf("memory-backend-ram,id=%s,size=%dM", id, mb) }
	speed := func(target, nanoseconds int, bandwidth string) []string {
		to := fmt.Sprintf("hmat-lb,initiator=0,target=%d,hierarchy=memory,data-type=access-", target)
		return []string{"-numa", to + fmt.Sprintf("latency,latency=%d", nanoseconds), "-numa", to + "bandwidth,bandwidth=" + bandwidth}
	}
	args := []string{"-machine", "hmat=on", "-object", backend("near", memoryMB-slowMB), "-object", backend("far", slowMB),
		"-numa", fmt.Sprintf("node,nodeid=0,memdev=near,cpus=0-%d", k.cpus-1), "-numa", "node,nodeid=1,memdev=far,initiator=0",
		"-numa", "dist,src=0,dst=1,val=20"}
	return append(append(args, speed(0, 10, "10G")...), speed(1, 1000, "1G")...)
}
