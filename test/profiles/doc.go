// Package profiles has programs in several languages wait, lock, write and leak
// for known times and amounts, and compares what the agent's profiles say with
// what the programs themselves have measured. It also floods the agent with new
// processes and libraries, and looks at its memory.
//
// It needs root and what .ci/deps installs.
package profiles
