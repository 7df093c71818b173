package procfs

import (
	"strconv"
	"strings"
)

// Mount is one line of mountinfo.
type Mount struct {
	ID      int    // of the mount, in its namespace
	Device  string // major:minor of the file system
	Root    string // what of the file system is mounted
	Point   string // where
	Options string // of the mount
	FSType  string
	Source  string
	Super   string // options of the file system
}

// ParseMounts parses the content of /proc/PID/mountinfo. Lines of another form
// are left out.
func ParseMounts(b []byte) []Mount {
	var all []Mount
	for line := range strings.Lines(string(b)) {
		// 36 35 98:0 /root /mountpoint opts tag:x … - fstype source superopts
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		all = append(all, Mount{
			ID: id, Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]), Options: f[5], FSType: g[0], Source: unescape(g[1]), Super: unescape(g[2]),
		})
	}
	return all
}

// unescape undoes the kernel's \040 for what would end a field.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
