package profile

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"io"
	"math"
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

// box is a node of a picture.
type box struct {
	parent      int // -1 for a root
	width       float64
	frame       *signal.Frame
	about, fill string // about: what the tooltip says behind the name
}

// drawSVG draws an icicle: roots on top, children below their parents, each as
// wide as its share of all. Parents stand before their children.
func drawSVG(w io.Writer, heading string, n int, all float64, of func(i int) box) error {
	boxes, x := make([]box, n), make([]float64, n)
	next := make([]float64, n) // where the next child goes
	depth := make([]int, n)
	root, deepest := 0.0, 0
	for i := range boxes {
		b := of(i)
		b.width *= svgWidth / max(all, 1e-300)
		if b.parent < 0 {
			x[i], root = root, root+b.width
		} else {
			x[i], depth[i] = next[b.parent], depth[b.parent]+1
			next[b.parent] += b.width
		}
		next[i] = x[i]
		if b.width >= svgLeast {
			deepest = max(deepest, depth[i])
		}
		boxes[i] = b
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="12">`+"\n", svgWidth, svgMargin+(deepest+1)*svgRow)
	fmt.Fprintf(out, `<text x="4" y="16">%s</text>`+"\n", escape(heading))
	for i, b := range boxes {
		if b.width < svgLeast {
			continue
		}
		name := Show(b.frame)
		fmt.Fprintf(out, `<g><title>%s (%s)</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="white" stroke-width="0.5"/>`,
			escape(name), escape(b.about), x[i], svgMargin+depth[i]*svgRow, b.width, svgRow, b.fill)
		if fit := int(b.width)/svgLetter - 1; fit >= 3 {
			fmt.Fprintf(out, `<text x="%.1f" y="%d">%s</text>`, x[i]+3, svgMargin+depth[i]*svgRow+13, escape(clip(name, fit)))
		}
		out.WriteString("</g>\n")
	}
	out.WriteString("</svg>\n")
	return out.Flush()
}

func writeSVG(w io.Writer, g *signal.FlameGraph) error {
	heading := fmt.Sprintf("%s: %s, %d samples", g.Type, Amount(g.Total, g.Unit), g.Samples)
	return drawSVG(w, heading, len(g.Nodes), float64(g.Total), func(i int) box {
		n := &g.Nodes[i]
		f := &g.Frames[n.Frame]
		about := fmt.Sprintf("%s, %.2f%%", Amount(n.Total, g.Unit), 100*float64(n.Total)/float64(g.Total))
		return box{n.Parent, float64(n.Total), f, about, colour(f)}
	})
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
	if v < 0 {
		return "-" + Amount(-max(v, -math.MaxInt64), unit)
	}
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
	case "count", "":
		switch {
		case f >= 1e9:
			return fmt.Sprintf("%.2f G", f/1e9)
		case f >= 1e6:
			return fmt.Sprintf("%.1f M", f/1e6)
		}
		return fmt.Sprint(v)
	}
	return fmt.Sprint(v, " ", unit) // of another tool
}
