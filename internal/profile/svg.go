package profile

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"unicode/utf8"

	"huatuo/internal/signal"
)

// Geometry of the picture, in pixels. A character of the font is 7 wide.
const (
	svgWidth  = 1200
	svgRow    = 18
	svgLetter = 7
	svgMargin = 24
	// svgLeast is the narrowest box that is drawn.
	svgLeast = 0.4
)

// writeSVG draws an icicle: roots on top, as wide as their share.
func writeSVG(w io.Writer, g *signal.FlameGraph) error {
	x := make([]float64, len(g.Nodes))
	next := make([]float64, len(g.Nodes)) // where the next child goes
	depth := make([]int, len(g.Nodes))
	root, deepest := 0.0, 0
	scale := 0.0
	if g.Total > 0 {
		scale = svgWidth / float64(g.Total)
	}
	for i, n := range g.Nodes {
		width := float64(n.Total) * scale
		if n.Parent < 0 {
			x[i], root = root, root+width
		} else {
			x[i], depth[i] = next[n.Parent], depth[n.Parent]+1
			next[n.Parent] += width
		}
		next[i] = x[i]
		if width >= svgLeast {
			deepest = max(deepest, depth[i])
		}
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="12">`+"\n", svgWidth, svgMargin+(deepest+1)*svgRow)
	fmt.Fprintf(out, `<text x="4" y="16">%s: %s, %d samples</text>`+"\n", escape(g.Type), Amount(g.Total, g.Unit), g.Samples)
	for i, n := range g.Nodes {
		width := float64(n.Total) * scale
		if width < svgLeast {
			continue
		}
		f := &g.Frames[n.Frame]
		name := Show(f)
		fmt.Fprintf(out, `<g><title>%s (%s, %.2f%%)</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="white" stroke-width="0.5"/>`,
			escape(name), Amount(n.Total, g.Unit), 100*float64(n.Total)/float64(g.Total), x[i], svgMargin+depth[i]*svgRow, width, svgRow, colour(f))
		if fit := int(width)/svgLetter - 1; fit >= 3 {
			fmt.Fprintf(out, `<text x="%.1f" y="%d">%s</text>`, x[i]+3, svgMargin+depth[i]*svgRow+13, escape(clip(name, fit)))
		}
		out.WriteString("</g>\n")
	}
	out.WriteString("</svg>\n")
	return out.Flush()
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

// clip cuts s to at most n characters.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// colour tells kernel, compiled and interpreted code apart, and neighbours a
// little.
func colour(f *signal.Frame) string {
	h := fnv.New32a()
	io.WriteString(h, f.Function)
	shade := int(h.Sum32() % 12)
	switch {
	case f.Missing != "":
		return "hsl(0,0%,80%)"
	case f.Module == "":
		return fmt.Sprintf("hsl(30,80%%,%d%%)", 66+shade)
	case strings.HasPrefix(f.Module, "/"):
		return fmt.Sprintf("hsl(50,80%%,%d%%)", 66+shade)
	}
	return fmt.Sprintf("hsl(120,45%%,%d%%)", 66+shade)
}

// Amount writes a value for people.
func Amount(v int64, unit string) string {
	f := float64(v)
	switch unit {
	case "nanoseconds":
		switch {
		case f >= 1e9:
			return fmt.Sprintf("%.2f s", f/1e9)
		case f >= 1e6:
			return fmt.Sprintf("%.1f ms", f/1e6)
		}
		return fmt.Sprintf("%.1f µs", f/1e3)
	case "bytes":
		switch {
		case f >= 1<<30:
			return fmt.Sprintf("%.2f GiB", f/(1<<30))
		case f >= 1<<20:
			return fmt.Sprintf("%.1f MiB", f/(1<<20))
		}
		return fmt.Sprintf("%.1f KiB", f/(1<<10))
	case "count":
		switch {
		case f >= 1e9:
			return fmt.Sprintf("%.2f G", f/1e9)
		case f >= 1e6:
			return fmt.Sprintf("%.1f M", f/1e6)
		}
	}
	return fmt.Sprint(v)
}
