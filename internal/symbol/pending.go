package symbol

import "huatuo/internal/signal"

// Pending tells whether a frame has no name yet: ask again soon.
func Pending(f *signal.Frame) bool {
	return f.Missing == notReady.String() || f.Missing == noAnswer.String()
}
