package loadavg

import (
	"runtime"
	"sync"
)

// lockThreads holds n goroutines on a thread of their own each until stop.
func lockThreads(n int) (stop func()) {
	var started, ended sync.WaitGroup
	quit := make(chan struct{})
	started.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			started.Done()
			<-quit
		})
	}
	started.Wait()
	return func() { close(quit); ended.Wait() }
}
