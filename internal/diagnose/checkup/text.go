package checkup

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// Print writes the report for a person, in lines of at most width columns.
func (r *Report) Print(out io.Writer, width int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %s, %s observed\n\n", r.Host, r.Kernel, r.Time.Local().Format("2006-01-02 15:04:05"), Seconds(r.Seconds))
	switch n := len(r.Findings); {
	case n == 0:
		fmt.Fprintf(&b, "Nothing is wrong.\n")
	case n == 1:
		fmt.Fprintf(&b, "One finding:\n")
	default:
		fmt.Fprintf(&b, "%d findings, worst first:\n", n)
	}
	for i, x := range r.Findings {
		mark := "warning "
		if x.Severity == signal.Critical {
			mark = "CRITICAL"
		}
		fmt.Fprintf(&b, "\n%2d  %s  %s: %s\n", i+1, mark, x.Rule, x.Subject)
		wrap(&b, "    ", x.Sentence, width)
		wrap(&b, "    → ", x.Next, width)
	}
	r.notes(&b, "Checked and fine", r.Fine, width)
	r.notes(&b, "Not measured here", r.NotMeasured, width)
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *Report) notes(b *strings.Builder, title string, notes []Note, width int) {
	if len(notes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	longest := 0
	for _, n := range notes {
		longest = max(longest, len(n.Rule))
	}
	for _, n := range notes {
		wrap(b, fmt.Sprintf("    %-*s  ", longest, n.Rule), n.Text, width)
	}
}

// wrap writes text after head, in lines of at most width columns that begin below
// the end of head.
func wrap(b *strings.Builder, head, text string, width int) {
	indent := len([]rune(head))
	line, column := head, indent
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		if i > 0 && column+1+n > width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line, column = strings.Repeat(" ", indent), indent
		} else if i > 0 {
			line += " "
			column++
		}
		line += word
		column += n
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// Seconds writes a time as a person would say it.
func Seconds(s float64) string {
	switch d := time.Duration(s * float64(time.Second)); {
	case d < time.Millisecond:
		return number(s*1e6) + " µs"
	case d < time.Second:
		return number(s*1e3) + " ms"
	case d < 2*time.Minute:
		return number(s) + " s"
	default:
		return number(s/60) + " min"
	}
}

// Bytes writes a size as a person would say it.
func Bytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return number(v) + " " + units[i]
}

// Percent writes a share.
func Percent(share float64) string { return number(share*100) + " %" }

// number writes three significant digits, and large numbers whole.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.005:
		return strconv.FormatFloat(v, 'g', 1, 64)
	case v < 10:
		return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".")
	case v < 100:
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	default:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
}

// many writes a number of things.
func many(n float64, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "s"):
		return number(n) + " " + thing + "es"
	}
	return number(n) + " " + thing + "s"
}
