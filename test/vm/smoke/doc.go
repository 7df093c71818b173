// Package smoke starts the agent's binary in a guest of test/vm and looks at it
// from outside.
package smoke
