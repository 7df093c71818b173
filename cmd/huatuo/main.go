// Command huatuo observes this machine's kernel and what runs on it, and shows
// and exports what it sees.
package main

import (
	"fmt"
	"os"
	"time"
)

// Set by the linker: -X main.version=… -X main.commit=…
var (
	version = "dev"
	commit  = ""
)

func main() {
	c := &cli{started: time.Now(), out: os.Stdout, err: os.Stderr}
	if err := c.root().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "huatuo: %v\n", err)
		os.Exit(exitCode(err))
	}
}
