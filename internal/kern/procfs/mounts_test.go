package procfs

import (
	"os"
	"slices"
	"testing"
)

func TestParseMounts(t *testing.T) {
	text := "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n" +
		"26 22 259:7 /sub /var/my\\040data ro shared:5 master:2 - xfs /dev/mapper/a\\134b rw\n" +
		"x 22 0:1 / /bad rw - a b c\n27 22 0:1 / /short rw - tmpfs tmpfs\n28 22 0:1 / /none rw\n29 22 0:9 / /t rw - tmpfs my\\040tmp rw,size=1m"
	want := []Mount{
		{22, "259:2", "/", "/", "rw,relatime", "ext4", "/dev/sda1", "rw,errors=remount-ro"},
		{26, "259:7", "/sub", "/var/my data", "ro", "xfs", `/dev/mapper/a\b`, "rw"},
		{29, "0:9", "/", "/t", "rw", "tmpfs", "my tmp", "rw,size=1m"},
	}
	if got := ParseMounts([]byte(text)); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skip("needs /proc")
	}
	if got := ParseMounts(b); len(got) == 0 || !slices.ContainsFunc(got, func(m Mount) bool { return m.Point == "/proc" && m.FSType == "proc" }) {
		t.Errorf("this process has no /proc among %+v", got)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("26 22 259:7 / /var/my\\040data rw shared:5 - xfs /dev/sda7 rw\n"))
	f.Fuzz(func(t *testing.T, b []byte) { ParseMounts(b) })
}
