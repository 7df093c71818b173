package frames

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"

	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// user names the user's stack; final is false when some names are not there yet.
//
// A function that makes no frame of its own, as leaves of Go programs and nearly
// all of libc, leaves the frame pointer to its caller's frame, and the walk goes
// on with the caller of the caller: the one in between is passed over. But the
// call instruction before the next return address tells who was called there.
// Where it names a function and that is another one than the frame below is in,
// it is put in between. Calls through a pointer or another file's table tell
// nothing.
func (n *namer) user(s *sample, p *process) (frames []signal.Frame, final bool) {
	frames = n.o.Symbols.User(s.pid, p.start, s.user) // waits for all files at once
	for i := range frames {
		if symbol.Pending(&frames[i]) {
			return frames, false
		}
	}
	called := n.callees(s, p)
	if called == nil {
		return frames, true
	}
	single := len(frames) == len(s.user) // no inlined calls among them
	var out []signal.Frame
	for i, ip := range s.user {
		if to := called[i]; to != 0 {
			f := n.function(s.pid, p.start, to)
			if below := &out[len(out)-1]; f.Function != symbol.Unknown && (f.Function != below.Function || f.Module != below.Module) {
				out = append(out, f)
			}
		}
		if single {
			out = append(out, frames[i])
			continue
		}
		if i > 0 {
			ip-- // a return address is behind the call
		}
		out = append(out, n.o.Symbols.User(s.pid, p.start, []uint64{ip})...)
	}
	return out, true
}

// function names the function that begins at an address. What is inlined there
// did not run yet, and the line is not the one that called.
func (n *namer) function(pid uint32, start, addr uint64) signal.Frame {
	frames := n.o.Symbols.User(pid, start, []uint64{addr})
	f := frames[len(frames)-1]
	f.Line = 0
	return f
}

// callees returns, for each return address of a stack, what was called there, 0
// where that cannot be told; nil when it can be told of none.
func (n *namer) callees(s *sample, p *process) []uint64 {
	size := callSize[runtime.GOARCH]
	if len(s.user) < 2 || p.start == 0 || size == 0 {
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("%s/%d/mem", n.o.Proc, s.pid))
	if err != nil { // it has ended, or we may not
		return nil
	}
	defer mem.Close()
	called := make([]uint64, len(s.user))
	var code [8]byte
	for i, ret := range s.user[1:] {
		at := int64(ret - uint64(size))
		if at <= 0 {
			continue
		}
		if _, err := mem.ReadAt(code[:size], at); err == nil {
			called[i+1] = callee(runtime.GOARCH, ret, code[:size])
		}
	}
	return called
}

// callSize is how long the instruction of a direct call is.
var callSize = map[string]int{"amd64": 5, "arm64": 4}

// callee returns what the direct call before a return address calls; 0 when it
// is none.
func callee(arch string, ret uint64, code []byte) uint64 {
	switch {
	case arch == "amd64" && code[0] == 0xe8: // call rel32
		return ret + uint64(int64(int32(binary.LittleEndian.Uint32(code[1:]))))
	case arch == "arm64" && code[3]>>2 == 0x25: // bl imm26
		words := int32(binary.LittleEndian.Uint32(code)<<6) >> 6
		return ret - 4 + uint64(int64(words)*4)
	}
	return 0
}
