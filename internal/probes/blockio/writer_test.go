package blockio

import (
	"bufio"
	"errors"
	"fmt"
	"os"
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
