// Package rules holds deploy/prometheus-rules to the catalogue of metrics and
// to promtool. It has tests only.
package rules
