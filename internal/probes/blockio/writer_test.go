package blockio

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"huatuo/test/faults/diskio"
)

// writerName, in the environment, makes the test binary a process that writes to
// that disk in an order that lets its requests be merged.
const writerName = "HUATUO_TEST_WRITER"

func TestMain(m *testing.M) {
	dev := os.Getenv(writerName)
	if dev == "" {
		os.Exit(m.Run())
	}
	bufio.NewReader(os.Stdin).ReadString('\n') // it is in its cgroup
	if err := errors.Join(diskio.Together(dev, true, 16, 256, 1), diskio.Together(dev, true, 8, 519, -1)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// mergedWrites is the kernel's own count (Documentation/block/stat.rst).
func mergedWrites(t *testing.T, disk string) string {
	t.Helper()
	b, err := os.ReadFile("/sys/block/" + disk + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))[5]
}
