// Package oracle holds the agent's values to those of an independent observer
// of the same run: the kernel's own trace ring for latencies, the control group
// files and the processes' own accounts for CPU and memory. It needs root.
package oracle
