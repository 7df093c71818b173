package clock

import "time"

// Until returns how long it is until the next moment that is a multiple of d on
// the wall clock: what waits by it for a multiple of the same beat wakes up
// together. Waking an idle process costs some 100 µs of CPU, however much it
// then does, so an agent that does ten small things a second should not do them
// at ten moments.
//
// The result is more than d/8, so that a clock that is being slewed does not
// make one moment two, and less than 9d/8. A step of the clock shortens or
// lengthens one wait, and never beyond that.
func Until(d time.Duration) time.Duration { return until(d, time.Now()) }

func until(d time.Duration, now time.Time) time.Duration {
	left := d - time.Duration(now.UnixNano())%d
	if left <= d/8 {
		left += d
	}
	return left
}
