package profile

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"huatuo/internal/signal"
)

// DiffFormats are those that EncodeDiff writes.
func DiffFormats() []string { return []string{"svg", "json"} }

// EncodeDiff writes a comparison: as a differential flame graph to look at, or as
// the JSON that the API has.
func EncodeDiff(w io.Writer, d *signal.ProfileDiff, format string) error {
	switch format {
	case "svg":
		return writeDiffSVG(w, d)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(d)
	}
	return fmt.Errorf("no format %q: want one of %s", format, strings.Join(DiffFormats(), ", "))
}

// writeDiffSVG draws both trees as one. A box is as wide as the mean of both, so
// that what is gone still shows.
func writeDiffSVG(w io.Writer, d *signal.ProfileDiff) error {
	then, now, word := float64(max(d.Before.Total, 1)), float64(max(d.After.Total, 1)), "share"
	if d.Absolute {
		then, now, word = max(then, now), max(then, now), "value"
	}
	heading := fmt.Sprintf("%s: %s before, %s after; red: larger %s, blue: smaller",
		d.Type, Amount(d.Before.Total, d.Unit), Amount(d.After.Total, d.Unit), word)
	mean := func(before, after int64) float64 { return (float64(before)/then + float64(after)/now) / 2 }
	return drawSVG(w, heading, len(d.Nodes), mean(d.Before.Total, d.After.Total), func(i int) box {
		n := &d.Nodes[i]
		before, after := float64(n.TotalBefore)/then, float64(n.Total)/now
		about := fmt.Sprintf("%.2f%% before, %.2f%% after, %+.2f%%", 100*before, 100*after, 100*(after-before))
		if d.Absolute {
			about = fmt.Sprintf("%s before, %s after", Amount(n.TotalBefore, d.Unit), Amount(n.Total, d.Unit))
		}
		return box{n.Parent, mean(n.TotalBefore, n.Total), &d.Frames[n.Frame], about, changeColour(after - before)}
	})
}

// changeColour is fullest from five points on: a function that takes a twentieth
// more is easily found.
func changeColour(change float64) string {
	v := min(1, math.Sqrt(math.Abs(change)/0.05))
	hue := 215
	if change > 0 {
		hue = 6
	}
	return fmt.Sprintf("hsl(%d,%.0f%%,%.0f%%)", hue, 78*v, 88-20*v)
}
