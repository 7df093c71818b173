package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

const (
	// attachTime is how long a JVM may take to open its attach socket: its own tools
	// wait for ten seconds.
	attachTime = 10 * time.Second
	attachLook = 50 * time.Millisecond
	// countTime is how long the objects may be counted: half a gigabyte takes half a
	// second, and five times that when garbage is collected first.
	countTime = time.Minute
	// maxHistogram bounds the answer: 100,000 classes of 100 bytes.
	maxHistogram = 16 << 20
	// dispatcher is HotSpot's thread that answers SIGQUIT, as the kernel has its
	// name. It is not there when -Xrs leaves the signal to its default.
	dispatcher = "Signal Dispatch"
)

// offersClasses tells whether a JVM can be asked for its classes, or why not.
func (p *process) offersClasses() ([]signal.RuntimeProfile, string) {
	j, err := p.attachable()
	if err != nil {
		return []signal.RuntimeProfile{}, err.Error()
	}
	defer j.close()
	return []signal.RuntimeProfile{kindOf("classes").offer(j.place(), nil)}, ""
}

// jvm is a HotSpot JVM that can be asked.
type jvm struct {
	p   *process
	st  status
	tmp *os.File // its /tmp
}

func (j *jvm) close() { j.tmp.Close() }

func (j *jvm) socketName() string { return fmt.Sprintf(".java_pid%d", j.st.inner) }

// place is where its socket is, as the process sees it.
func (j *jvm) place() string { return "/tmp/" + j.socketName() }

// attachable checks all that a JVM needs to be asked, and nothing that it would
// notice.
func (p *process) attachable() (*jvm, error) {
	st, err := p.status()
	if err != nil {
		return nil, fmt.Errorf("read its status: %w", err)
	}
	if st.state == "T" || st.state == "t" {
		return nil, errors.New("it is stopped")
	}
	tmp, err := p.openTmp()
	if err != nil {
		return nil, fmt.Errorf("open its /tmp: %w", err)
	}
	j := &jvm{p, st, tmp}
	exists, err := j.hasSocket()
	if err == nil && !exists {
		err = p.signalable()
	}
	if err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

// openTmp opens /tmp as the process sees it. Its root is walked as one that
// somebody else has made: a link that leads out of it is not followed.
func (p *process) openTmp() (*os.File, error) {
	root, err := os.OpenRoot(p.path("root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tmp, err := root.OpenRoot("tmp")
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	return tmp.Open(".")
}

// signalable tells whether SIGQUIT asks the process to open its attach socket.
// Where it does not, it ends the process.
func (p *process) signalable() error {
	st, err := p.status()
	switch {
	case err != nil:
		return fmt.Errorf("read its status: %w", err)
	case !st.catches(unix.SIGQUIT), !p.hasThread(dispatcher):
		return errors.New("it does not take SIGQUIT, by which a JVM is asked: it has -Xrs or -XX:+ReduceSignalUsage, or is only just starting")
	}
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(p.path(file))
		if err != nil {
			return fmt.Errorf("read its %s: %w", file, err)
		}
		if strings.Contains(string(text), "-XX:+DisableAttachMechanism") {
			return errors.New("it does not let itself be asked: -XX:+DisableAttachMechanism")
		}
	}
	return nil
}

// hasSocket tells whether the attach socket is there.
func (j *jvm) hasSocket() (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(j.tmp.Fd()), j.socketName(), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for its attach socket: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK, st.Uid != j.st.uid:
		return false, fmt.Errorf("%s is not its socket", j.place())
	}
	return true, nil
}

// open makes the JVM open its attach socket, if it has not yet.
func (j *jvm) open(ctx context.Context) error {
	if exists, err := j.hasSocket(); exists || err != nil {
		return err
	}
	request := fmt.Sprintf(".attach_pid%d", j.st.inner)
	fd, err := unix.Openat(int(j.tmp.Fd()), request, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		defer unix.Unlinkat(int(j.tmp.Fd()), request, 0)
		err = unix.Fchown(fd, int(j.st.uid), int(j.st.gid)) // it trusts its own alone
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("give it the file by which it is asked: %w", err)
		}
	case !errors.Is(err, fs.ErrExist): // left by another tool: it does as well
		return fmt.Errorf("write to its /tmp: %w", err)
	}
	if err := j.p.signalable(); err != nil { // once more, as late as can be
		return err
	}
	// By the directory and not by the number, which may be another process' by now,
	// or mean another one in this pid namespace.
	if err := unix.PidfdSendSignal(int(j.p.dir.Fd()), unix.SIGQUIT, nil, 0); err != nil {
		switch {
		case errors.Is(err, unix.ENOSYS):
			err = errors.New("a kernel before 5.1 cannot send a signal to exactly this process; run jcmd once, which opens the socket")
		case errors.Is(err, unix.EINVAL):
			err = errors.New("the agent is in another pid namespace, from where no signal gets there; run jcmd once, which opens the socket")
		}
		return fmt.Errorf("send SIGQUIT: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	for {
		if exists, err := j.hasSocket(); exists || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it has not opened its attach socket within %v", attachTime)
		case <-time.After(attachLook):
		}
	}
}

// connect connects to the attach socket, which must be the process' own.
func (j *jvm) connect() (*net.UnixConn, error) {
	fd, err := unix.Openat(int(j.tmp.Fd()), j.socketName(), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// By the file that was opened: the name could be another one's by now.
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d", fd), Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := j.verify(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// verify checks who listens. A process of another pid namespace has the number 0
// here: then its user must do.
func (j *jvm) verify(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	if e := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return errors.Join(e, err)
	}
	if who.Uid != j.st.uid || who.Pid != 0 && who.Pid != int32(j.p.pid) && !otherNumbers(j.p) {
		return fmt.Errorf("%s is process %d's of user %d", j.place(), who.Pid, who.Uid)
	}
	return nil
}

// otherNumbers tells whether the process' directory is of a procfs that numbers
// processes in another way than this process sees them.
func otherNumbers(p *process) bool {
	self, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.dir.Fd()))
	if err != nil {
		return true
	}
	own, err := os.Readlink(strings.TrimSuffix(self, fmt.Sprintf("/%d", p.pid)) + "/self")
	return err != nil || own != fmt.Sprint(os.Getpid())
}

// ask runs a command of HotSpot's attach protocol, version 1, which all versions
// speak: strings that end in zero out, a line with a number and the answer in.
func (j *jvm) ask(ctx context.Context, command string, args ...string) (string, error) {
	if err := j.open(ctx); err != nil {
		return "", err
	}
	c, err := j.connect()
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "", fmt.Errorf("nobody listens at %s: it is left from another process", j.place())
	}
	if err != nil {
		return "", fmt.Errorf("connect to its attach socket: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(countTime)); err != nil {
		return "", err
	}
	words := slices.Concat([]string{"1", command}, args, make([]string, 3-len(args))) // always three arguments
	if _, err := io.WriteString(c, strings.Join(words, "\x00")+"\x00"); err != nil {
		return "", fmt.Errorf("write to its attach socket: %w", plain(err))
	}
	text, err := io.ReadAll(io.LimitReader(c, maxHistogram+1))
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("read from its attach socket: %w", plain(err))
	case len(text) > maxHistogram:
		return "", errTooMuch
	}
	code, rest, _ := strings.Cut(string(text), "\n")
	if code != "0" {
		return "", fmt.Errorf("it refuses %s: %s", command, firstLine(text))
	}
	return rest, nil
}

// classes gets the class histogram.
func (p *process) classes(ctx context.Context, collect bool) (*profile.Profile, error) {
	j, err := p.attachable()
	if err != nil {
		return nil, errorOf(notFound, "process %d cannot be asked: %w", p.pid, err)
	}
	defer j.close()
	which := "-all" // -live collects garbage first
	if collect {
		which = "-live"
	}
	text, err := j.ask(ctx, "inspectheap", which)
	if err != nil {
		return nil, errorOf(failed, "ask the JVM of process %d: %w", p.pid, err)
	}
	list, err := parseHistogram(text)
	if err != nil {
		return nil, errorOf(failed, "read the classes of process %d: %w", p.pid, err)
	}
	return classProfile(list, time.Now())
}
