package main

import (
	"io"
	"strings"
	"unicode"
)

// printable takes control characters but line ends out of a text: names of
// processes, files and functions are whatever their owners made them, and a
// terminal obeys.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return '.'
		}
		return r
	}, s)
}

// printableWriter passes on what printable leaves. A write must end where a
// character does.
type printableWriter struct{ w io.Writer }

// Write writes all of b, changed or not.
func (p printableWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.w, printable(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
