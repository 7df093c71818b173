package config

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		out  string // empty: an error
	}{
		{"5s", 5 * time.Second, "5s"},
		{"0", 0, "0s"},
		{"500ms", 500 * time.Millisecond, "500ms"},
		{"15d", 15 * day, "15d"},
		{"1w", 7 * day, "7d"},
		{"1w2d12h", 9*day + 12*time.Hour, "9d12h"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"36h", 36 * time.Hour, "1d12h"},
		{"1d0.5s", day + 500*time.Millisecond, "1d500ms"},
		{"", 0, ""}, {"5", 0, ""}, {"-5s", 0, ""}, {"1d-5s", 0, ""}, {"-1d", 0, ""}, {"d", 0, ""}, {"1.5d", 0, ""},
		{"1d2w", 0, ""}, {"300000d", 0, ""}, {"106751d24h", 0, ""}, {"2w106750d", 0, ""}, {"5 s", 0, ""}, {"1x", 0, ""},
	} {
		got, err := ParseDuration(tt.in)
		if tt.out == "" {
			if err == nil {
				t.Errorf("ParseDuration(%q) = %v, want an error", tt.in, got)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
		if s := FormatDuration(got); s != tt.out {
			t.Errorf("FormatDuration(%v) = %q, want %q", got, s, tt.out)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		out  string // empty: an error
	}{
		{"0", 0, "0"}, {"4096", 4096, "4KiB"}, {"1000", 1000, "1000"}, {"512MiB", 512 << 20, "512MiB"}, {"2 GiB", 2 << 30, "2GiB"},
		{"500MB", 500e6, "500000000"}, {"1TiB", 1 << 40, "1TiB"}, {"7B", 7, "7"}, {"1536KiB", 1536 << 10, "1536KiB"},
		{"", 0, ""}, {"MiB", 0, ""}, {"-1", 0, ""}, {"1.5GiB", 0, ""}, {"1mib", 0, ""}, {"9999999999TiB", 0, ""}, {"8388608TiB", 0, ""}, {"1 M", 0, ""},
	} {
		got, err := ParseSize(tt.in)
		if tt.out == "" {
			if err == nil {
				t.Errorf("ParseSize(%q) = %v, want an error", tt.in, got)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("ParseSize(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
		if s := FormatSize(got); s != tt.out {
			t.Errorf("FormatSize(%v) = %q, want %q", got, s, tt.out)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"retention", "max_size", "dir"}
	for in, want := range map[string]string{
		"retension": `: did you mean "retention"?`, "maxsize": `: did you mean "max_size"?`, "dri": `: did you mean "dir"?`, "password": "", "": "",
	} {
		if got := didYouMean(in, names); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", in, got, want)
		}
	}
}
