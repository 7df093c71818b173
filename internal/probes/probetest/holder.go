package probetest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holderName, in the environment, makes the test binary a process that holds memory.
const holderName = "HUATUO_TEST_HOLDER"

// Holder is a process of the test binary in a cgroup of its own: it takes memory
// and uses it as it is told. The package's TestMain must call HolderMain.
type Holder struct {
	*Cgroup
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// NewHolder starts a process in the cgroup /<name>, whose memory is limited to so
// many bytes, 0 for no limit. It ends with the test.
func NewHolder(t testing.TB, name string, limit int) *Holder {
	t.Helper()
	h := &Holder{Cgroup: NewCgroup(t, name), cmd: exec.Command(os.Args[0])}
	if limit > 0 {
		h.Limit(t, limit)
	}
	// Little of its own, and no part of it in huge pages that come and go.
	h.cmd.Env = append(os.Environ(), holderName+"=1", "GOGC=off", "GOMAXPROCS=1")
	h.cmd.Stderr = os.Stderr
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.End() })
	h.Add(t, h.cmd.Process.Pid)
	return h
}

// Limit lets the cgroup have so many bytes.
func (h *Holder) Limit(t testing.TB, bytes int) {
	t.Helper()
	file := "memory.max"
	if OnV1() {
		file = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(h.Dir("memory"), file), []byte(strconv.Itoa(bytes)), 0); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
}

// PID is the process's.
func (h *Holder) PID() int { return h.cmd.Process.Pid }

// Try lets the process do what HolderMain knows, and returns why it did not.
func (h *Holder) Try(command string, n int) error { return h.TryFile(command, strconv.Itoa(n)) }

// TryFile is Try for a command that takes a file.
func (h *Holder) TryFile(command, path string) error {
	line := command + " " + path
	if _, err := fmt.Fprintln(h.in, line); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	answer, err := h.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s: the process has ended: %w", line, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("%s: %s", line, answer)
	}
	return nil
}

// Do is Try whose failure ends the test.
func (h *Holder) Do(t testing.TB, command string, n int) {
	t.Helper()
	if err := h.Try(command, n); err != nil {
		t.Fatal(err)
	}
}

// End kills the process and returns how it ended.
func (h *Holder) End() *os.ProcessState {
	if h.cmd.ProcessState == nil {
		h.cmd.Process.Kill()
		h.cmd.Wait() // killed: its status is an error by design
	}
	return h.cmd.ProcessState
}

// HolderMain is to be the first thing in TestMain: it does not return in the
// process that NewHolder starts. That one knows
//
//	fill N        take N bytes more in small pages, each with other contents
//	huge N        take N bytes more, in huge pages where there are any
//	small N       as fill, in places that huge pages may take later
//	touch N       take N bytes more as with huge, and write a byte in each place for one
//	read          read every page that it took, in order
//	mlock         lock what it took
//	sparse N      take one page in each 2 MiB of N bytes
//	cat F         read the file F
//	scatter F     read a page of each 256 KiB of the file F
//	write F       write 4 MiB to the file F
//	map F         map the file F and read it
//	names D       look for 20000 files that are not in the directory D: the kernel keeps each name
//	send N        send N datagrams of 1000 bytes to a socket of its own that it does not read
//	spin N        use the CPU for N milliseconds
func HolderMain() {
	if os.Getenv(holderName) == "" {
		return
	}
	var held holding
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		command, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := held.obey(command, arg); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
}

// holding is the memory that the process has taken.
type holding [][]byte

func (h *holding) obey(command, arg string) error {
	n, _ := strconv.Atoi(arg)
	switch command {
	case "fill", "huge", "small", "touch", "sparse":
		return h.take(command, n)
	case "read":
		for _, mem := range *h {
			Read(mem)
		}
		return nil
	case "mlock":
		for _, mem := range *h {
			if err := unix.Mlock(mem); err != nil {
				return err
			}
		}
		return nil
	case "cat":
		f, err := os.Open(arg)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 64<<10))
		return err
	case "scatter":
		return readScattered(arg)
	case "write":
		return os.WriteFile(arg, make([]byte, 4<<20), 0o600)
	case "map":
		return readMapped(arg)
	case "names":
		for i := range 20000 {
			if _, err := os.Stat(filepath.Join(arg, strconv.Itoa(i)+strings.Repeat("-", 60))); err == nil {
				return fmt.Errorf("%s has such a file", arg)
			}
		}
		return nil
	case "send":
		return sendUnread(n)
	case "spin":
		for end := time.Now().Add(time.Duration(n) * time.Millisecond); time.Now().Before(end); {
		}
		return nil
	}
	return fmt.Errorf("unknown command %q", command)
}

func (h *holding) take(how string, n int) error {
	get := HugePages
	if how == "fill" || how == "sparse" {
		get = Pages
	}
	mem, err := get(n)
	if err != nil {
		return err
	}
	*h = append(*h, mem)
	switch how {
	case "fill", "huge":
		Fill(mem)
		return nil
	case "small":
		if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
			return err
		}
		Fill(mem)
		return unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	for i := 0; i < n; i += HugeSize {
		mem[i] = 1
	}
	return nil
}

func readScattered(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // nothing beside
		return err
	}
	b := make([]byte, os.Getpagesize())
	for off := int64(0); ; off += 256 << 10 {
		if _, err := f.ReadAt(b, off); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func readMapped(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	Read(mem)
	return nil
}

// sendUnread sends n datagrams to a socket that nobody reads.
func sendUnread(n int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // open until the process ends
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	to, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	for range n {
		if err := unix.Sendto(fd, make([]byte, 1000), 0, to); err != nil {
			return err
		}
	}
	return nil
}
