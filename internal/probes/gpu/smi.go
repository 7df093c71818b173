package gpu

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// killWait is how long a program that was killed may take to end.
const killWait = time.Second

// maxOutput of the program: 16 GPUs make 8 KB.
const maxOutput = 1 << 20

var errTimeout = errors.New("it has not ended in time and was killed")

// smi runs nvidia-smi.
type smi struct {
	path    string
	timeout time.Duration
	fields  []string // that this version knows, of those that we want; nil: not asked yet
}

// row is what it tells about one GPU: texts by field.
type row struct {
	gpu    string
	fields map[string]string
}

// query returns what it tells. One goroutine at a time may call it.
func (s *smi) query() ([]row, error) {
	if s.fields == nil {
		out, err := s.run("--help-query-gpu")
		if err != nil {
			return nil, err
		}
		if s.fields = known(string(out)); !slices.Contains(s.fields, busField) {
			s.fields = nil
			return nil, fmt.Errorf("%s knows no field %s", s.path, busField)
		}
	}
	out, err := s.run("--query-gpu="+strings.Join(s.fields, ","), "--format=csv,noheader,nounits")
	rows, bad := parse(out, s.fields)
	if err != nil && len(rows) > 0 && !errors.Is(err, errTimeout) {
		return rows, nil // one GPU is lost, and it said so of that one
	}
	return rows, errors.Join(err, bad)
}

func (s *smi) run(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = killWait
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return out.Bytes(), fmt.Errorf("run %s: %w", s.path, errTimeout)
	case err != nil:
		line, _, _ := bytes.Cut(out.Bytes(), []byte("\n"))
		return out.Bytes(), fmt.Errorf("run %s: %w: %.200q", s.path, err, line)
	}
	return out.Bytes(), nil
}

// limited keeps the beginning of what is written and takes the rest.
type limited struct{ bytes.Buffer }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, maxOutput-l.Len()))])
	return len(p), nil
}

// known returns the fields that a version has, of those that we want: it refuses
// the whole query when one is not there. The help has each on a line of its own, in quotes,
// other names of it behind.
func known(help string) []string {
	has := map[string]bool{}
	for line := range strings.Lines(help) {
		if !strings.HasPrefix(line, `"`) {
			continue
		}
		for i, part := range strings.Split(line, `"`) {
			if i%2 == 1 {
				has[part] = true
			}
		}
	}
	var out []string
	for _, f := range wanted() {
		if has[f] && !(f == reasonFields[1] && has[reasonFields[0]]) { // one, under two names
			out = append(out, f)
		}
	}
	return out
}

// parse reads lines of comma-separated values; messages between them, of GPUs that
// are lost, are left out.
func parse(out []byte, fields []string) ([]row, error) {
	r := csv.NewReader(bytes.NewReader(out))
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	r.LazyQuotes = true
	lines, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("parse the output of nvidia-smi: %w", err)
	}
	var rows []row
	for _, l := range lines {
		if len(l) != len(fields) {
			continue
		}
		x := row{fields: map[string]string{}}
		for i, f := range fields {
			x.fields[f] = strings.ToValidUTF8(strings.TrimSpace(l[i]), "\uFFFD")
		}
		if x.gpu = address(x.fields[busField]); x.gpu != "" {
			rows = append(rows, x)
		}
	}
	return rows, nil
}

// address turns 00000000:3B:00.0 into the kernel's form, 0000:3b:00.0; "" when it is none.
func address(s string) string {
	domain, rest, ok := strings.Cut(strings.ToLower(s), ":")
	d, err := strconv.ParseUint(domain, 16, 32)
	if !ok || err != nil || len(rest) != len("3b:00.0") {
		return ""
	}
	return fmt.Sprintf("%04x:%s", d, rest)
}

// number of a field; false for [N/A], [Not Supported], [Unknown Error] and the like.
func (r *row) number(field string) (float64, bool) {
	v, err := strconv.ParseFloat(r.fields[field], 64)
	return v, err == nil && v >= 0
}
