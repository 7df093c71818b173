package nvme

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// logBytes is the size of the health log (NVM Express base specification, log page 02h).
const logBytes = 512

// health is the log in base units.
type health struct {
	warning      uint8 // bits of warnings
	celsius      float64
	spare        float64 // ratio
	spareLimit   float64
	used         float64
	readBytes    float64
	writtenBytes float64
	busySeconds  float64
	powerCycles  float64
	onSeconds    float64
	unsafe       float64 // shutdowns
	mediaErrors  float64
	logEntries   float64
	warmSeconds  float64
	hotSeconds   float64
}

// parse reads a log page. Counters are 128 bits wide, little endian.
func parse(b []byte) (health, error) {
	if len(b) < logBytes {
		return health{}, fmt.Errorf("health log has %d bytes, want %d", len(b), logBytes)
	}
	wide := func(at int) float64 {
		return float64(binary.LittleEndian.Uint64(b[at:])) + float64(binary.LittleEndian.Uint64(b[at+8:]))*(1<<64)
	}
	const dataUnit = 1000 * 512 // bytes
	return health{
		warning:      b[0],
		celsius:      float64(binary.LittleEndian.Uint16(b[1:])) - 273,
		spare:        float64(b[3]) / 100,
		spareLimit:   float64(b[4]) / 100,
		used:         float64(b[5]) / 100,
		readBytes:    wide(32) * dataUnit,
		writtenBytes: wide(48) * dataUnit,
		busySeconds:  wide(96) * 60,
		powerCycles:  wide(112),
		onSeconds:    wide(128) * 3600,
		unsafe:       wide(144),
		mediaErrors:  wide(160),
		logEntries:   wide(176),
		warmSeconds:  float64(binary.LittleEndian.Uint32(b[192:])) * 60,
		hotSeconds:   float64(binary.LittleEndian.Uint32(b[196:])) * 60,
	}, nil
}

// adminCmd is struct nvme_admin_cmd (include/uapi/linux/nvme_ioctl.h).
type adminCmd struct {
	opcode      uint8
	flags       uint8
	rsvd1       uint16
	nsid        uint32
	cdw2        uint32
	cdw3        uint32
	metadata    uint64
	addr        uint64
	metadataLen uint32
	dataLen     uint32
	cdw10       uint32
	cdw11       uint32
	cdw12       uint32
	cdw13       uint32
	cdw14       uint32
	cdw15       uint32
	timeoutMS   uint32
	result      uint32
}

const (
	ioctlAdminCmd = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_admin_cmd)
	opGetLogPage  = 0x02
	logHealth     = 0x02
	allNamespaces = 0xffffffff
)

// readLog asks a controller for its health log. It has no time limit of its own
// (timeoutMS 0: the driver's, 60 s by default): when a command's time is over,
// the driver resets the controller, and that must not come from looking.
func readLog(dev string) ([]byte, error) {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, logBytes)
	var pin runtime.Pinner
	pin.Pin(&buf[0])
	defer pin.Unpin()
	c := adminCmd{
		opcode: opGetLogPage, nsid: allNamespaces,
		addr: uint64(uintptr(unsafe.Pointer(&buf[0]))), dataLen: logBytes,
		cdw10: (logBytes/4-1)<<16 | logHealth,
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlAdminCmd, uintptr(unsafe.Pointer(&c)))
	if errno != 0 {
		return nil, fmt.Errorf("ask %s for its health log: %w", dev, errno)
	}
	if status != 0 {
		return nil, fmt.Errorf("ask %s for its health log: NVMe status 0x%x", dev, status)
	}
	return buf, nil
}
