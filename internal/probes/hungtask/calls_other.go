//go:build !amd64

package hungtask

import "golang.org/x/sys/unix"

// legacyCalls adds what has another name here than on amd64.
func legacyCalls(m map[int64]call) { m[unix.SYS_FSTATAT] = inDir("newfstatat", 0, 1) }
