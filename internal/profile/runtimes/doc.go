// Package runtimes asks processes for the profiles that their own language
// runtimes keep: Go programs that serve net/http/pprof, and HotSpot JVMs by their
// attach socket.
//
// Asking is an action: it sends bytes to a port, or a signal to a process. So it
// is done for one process that somebody has named, and never to what is not known
// to understand it: only ports of Go programs are asked, and only a JVM that
// catches SIGQUIT and has the thread that answers it gets one, because any other
// process ends by it. What comes back is not trusted: it has bounds in time and
// size, and is parsed before it is handed on.
package runtimes
