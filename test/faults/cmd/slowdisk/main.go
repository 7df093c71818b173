// Command slowdisk makes a loop device that is slow, hangs or fails, prints its
// name and keeps it until it is interrupted:
//
//	slowdisk -delay 1.2s            every request takes 1.2 s
//	slowdisk -hang                  no request completes until SIGUSR1
//	slowdisk -error                 every request fails with EIO
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"huatuo/test/faults/slowdisk"
)

func main() {
	delay := flag.Duration("delay", 0, "time that each read and write takes")
	hang := flag.Bool("hang", false, "hang until SIGUSR1")
	fail := flag.Bool("error", false, "fail with EIO")
	size := flag.Int("size", 16<<20, "bytes")
	flag.Parse()
	if err := run(*delay, *hang, *fail, *size); err != nil {
		fmt.Fprintln(os.Stderr, "slowdisk:", err)
		os.Exit(1)
	}
}

func run(delay time.Duration, hang, fail bool, size int) (err error) {
	dir, err := os.MkdirTemp("", "slowdisk")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	d, err := slowdisk.Mount(dir, size)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, d.Close()) }()
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		return err
	}
	defer func() {
		d.Release()
		d.SetDelay(0)
		err = firstOf(err, l.Detach())
	}()
	// Only now: to attach reads the device, to look for a partition table.
	d.SetDelay(delay)
	if fail {
		d.SetError(syscall.EIO)
	}
	if hang {
		d.Hold()
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println(l.Dev)
	for s := range c {
		if s != syscall.SIGUSR1 {
			break
		}
		d.Release()
	}
	return nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
