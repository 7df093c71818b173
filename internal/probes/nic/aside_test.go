package nic

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestAside reads something that fails, hangs, and answers again.
func TestAside(t *testing.T) {
	var a aside[int]
	ctx, cancel := context.WithCancel(t.Context())
	answers, kick, failed := make(chan int), make(chan struct{}, 1), make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.keep(ctx, time.Now, time.Millisecond, kick, func() (int, error) {
			if n := <-answers; n >= 0 {
				return n, nil
			}
			return 0, errors.New("no answer")
		}, func(err error) { failed <- err })
	}()
	answers <- 1
	answers <- -1
	if err := <-failed; err == nil {
		t.Error("an error that is none")
	}
	v, at := a.get()
	if v != 1 || at.IsZero() {
		t.Errorf("%d at %v after an error, want the answer before it", v, at)
	}
	kick <- struct{}{} // while it hangs
	if again, then := a.get(); again != 1 || then != at {
		t.Errorf("%d at %v while it hangs", again, then)
	}
	answers <- 2
	eventually(t, func() bool { v, _ := a.get(); return v == 2 }, "it does not answer again")
	cancel()
	for {
		select {
		case answers <- 3: // it was waiting for one more
		case <-done:
			return
		}
	}
}

// TestWait does not wait for what hangs.
func TestWait(t *testing.T) {
	var wg sync.WaitGroup
	hang := make(chan struct{})
	wg.Go(func() { <-hang })
	begun := time.Now()
	wait(&wg)
	if d := time.Since(begun); d < settle/2 || d > time.Minute {
		t.Errorf("it waited %v", d)
	}
	close(hang)
	wait(&wg)
}
