package hungtask

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mount is a line of /proc/PID/mountinfo.
type mount struct {
	id           int
	major, minor uint32
	dir          string
	fsType       string
	source       string
}

// parseMounts parses /proc/PID/mountinfo:
// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue".
func parseMounts(b []byte) (ms []mount) {
	for line := range bytes.Lines(b) {
		left, right, ok := strings.Cut(string(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 1 {
			continue
		}
		m := mount{dir: unescape(l[4]), fsType: r[0]}
		if len(r) > 1 {
			m.source = unescape(r[1])
		}
		major, minor, _ := strings.Cut(l[2], ":")
		id, err1 := strconv.Atoi(l[0])
		a, err2 := strconv.ParseUint(major, 10, 32)
		i, err3 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		m.id, m.major, m.minor = id, uint32(a), uint32(i)
		ms = append(ms, m)
	}
	return ms
}

// unescape undoes what the kernel does to blanks: "\040".
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountOf returns the mount that a path is on by its name alone: the one with
// the longest directory above it, of two with the same one the later. Nothing
// of the path is looked up, which could hang.
func mountOf(ms []mount, path string) (best mount, ok bool) {
	for _, m := range ms {
		if (path == m.dir || m.dir == "/" || strings.HasPrefix(path, m.dir+"/")) && (!ok || len(m.dir) >= len(best.dir)) {
			best, ok = m, true
		}
	}
	return best, ok
}

// disks tells names and numbers of block devices by sysfs.
type disks struct{ sys string }

// name of a block device by its number, "" for a number that is none's.
func (d disks) name(major, minor uint32) string {
	to, err := os.Readlink(fmt.Sprintf("%s/dev/block/%d:%d", d.sys, major, minor))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// number of a block device by its name, "" when there is none.
func (d disks) number(name string) string {
	if name == "" || strings.ContainsRune(name, '/') {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(d.sys, "class/block", name, "dev"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// maxBelow bounds the devices that one is made of.
const maxBelow = 32

// below returns the numbers of a device and of those that it is a part or made
// of: the disk of a partition, the members of a RAID, a volume's disks.
func (d disks) below(name string) (numbers []string) {
	todo := []string{name}
	for i := 0; i < len(todo) && i < maxBelow; i++ {
		n := d.number(todo[i])
		if n == "" {
			continue
		}
		numbers = append(numbers, n)
		dir, err := filepath.EvalSymlinks(filepath.Join(d.sys, "class/block", todo[i]))
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			todo = append(todo, filepath.Base(filepath.Dir(dir)))
		}
		if slaves, err := os.ReadDir(filepath.Join(dir, "slaves")); err == nil {
			for _, s := range slaves {
				todo = append(todo, s.Name())
			}
		}
	}
	return numbers
}
