package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// plainWidth is how wide a line may be where there is no terminal that tells.
const plainWidth = 120

// terminal returns the file of out when it is one of a terminal.
func terminal(out io.Writer) (*os.File, bool) {
	f, ok := out.(*os.File)
	if !ok {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return f, err == nil
}

// textWidth returns how many columns out has.
func textWidth(out io.Writer) int {
	if f, ok := terminal(out); ok {
		if w, _, ok := size(f); ok {
			return w
		}
	}
	return plainWidth
}

// size returns the columns and rows of a terminal.
func size(f *os.File) (width, height int, ok bool) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24, false
	}
	return int(ws.Col), int(ws.Row), true
}

// screen is a terminal taken over by a command: another screen, no cursor, and
// keys that come one by one.
type screen struct {
	in, out *os.File
	before  *unix.Termios
	keys    chan byte
}

// openScreen takes over the terminal; false when in and out are not both one.
func openScreen(in *os.File, out io.Writer) (*screen, bool) {
	f, ok := terminal(out)
	if !ok {
		return nil, false
	}
	t, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
	if err != nil {
		return nil, false
	}
	s := &screen{in: in, out: f, keys: make(chan byte, 16)}
	before := *t
	s.before = &before
	t.Lflag &^= unix.ICANON | unix.ECHO
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	t.Cc[unix.VSUSP] = 0 // it would leave the screen as it is
	if err := unix.IoctlSetTermios(int(in.Fd()), unix.TCSETS, t); err != nil {
		return nil, false
	}
	fmt.Fprint(f, "\x1b[?1049h\x1b[?25l")
	go s.read()
	return s, true
}

// read passes keys on until the process ends: a read of a terminal cannot be
// called off.
func (s *screen) read() {
	r := bufio.NewReader(s.in)
	for {
		b, err := r.ReadByte()
		if err != nil {
			close(s.keys)
			return
		}
		select {
		case s.keys <- b:
		default: // nobody can mean so many
		}
	}
}

// close gives the terminal back as it was.
func (s *screen) close() {
	fmt.Fprint(s.out, "\x1b[?25h\x1b[?1049l")
	_ = unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, s.before)
}

// draw replaces what the screen shows, without a blank in between.
func (s *screen) draw(lines []string) error {
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(s.out, b.String())
	return err
}
