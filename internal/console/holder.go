package console

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that listens on a TCP port, for an error message.
// It looks at each process' descriptors as ss does; other users' are hidden
// from an agent that is not root.
func holder(proc, port string) string {
	hint := fmt.Sprintf("another process (ss -ltnp 'sport = :%s' tells which)", port)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return hint
	}
	inodes := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		listening(filepath.Join(proc, "net", table), uint16(n), inodes)
	}
	links, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return hint
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(comm)), filepath.Base(dir))
	}
	return hint
}

// listening adds the sockets of a /proc/net/tcp table that listen on the port,
// as the links in /proc/PID/fd name them.
func listening(table string, port uint16, into map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		const local, state, inode = 1, 3, 9
		col := strings.Fields(lines.Text())
		if len(col) > inode && strings.HasSuffix(col[local], suffix) && col[state] == "0A" { // TCP_LISTEN
			into["socket:["+col[inode]+"]"] = true
		}
	}
}
