package procfs

import (
	"slices"
	"testing"
)

func TestParseStack(t *testing.T) {
	got := ParseStack([]byte("[<0>] percpu_rwsem_wait+0x10c/0x130\n[<0>] nfs3_do+0x1/0x2 [nfs]\n[<0>] 0x7f00\ngarbage\n[<0>] bare\n"))
	if want := []string{"percpu_rwsem_wait", "nfs3_do", "bare"}; !slices.Equal(got, want) {
		t.Errorf("functions %q, want %q", got, want)
	}
}

func TestParseSyscall(t *testing.T) {
	got, ok := ParseSyscall([]byte("257 0xffffff9c 0x10 0x0 0x1ff 0x5 0x6 0x7ffe 0x7f00\n"))
	if want := (Syscall{257, [6]uint64{0xffffff9c, 0x10, 0, 0x1ff, 5, 6}}); !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
	for _, bad := range []string{"", "running\n", "-1 0x7ffe 0x7f00\n", "x 0x1 0x2 0x3 0x4 0x5 0x6\n", "0 0x1 0x2 0x3 zz 0x5 0x6\n", "0 1 2 3 4 5 6\n"} {
		if got, ok := ParseSyscall([]byte(bad)); ok {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func FuzzParseSyscall(f *testing.F) {
	f.Add([]byte("0 0x3 0x7ffe 0x0 0x1 0x5 0x6 0x7ffe 0x7f00\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseSyscall(b)
		ParseStack(b)
	})
}
