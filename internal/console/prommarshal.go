package console

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// The appenders below write values as Prometheus' API does, byte for byte
// (tests compare with Prometheus' own code and with answers of a server). They
// append to a slice, because a range query may have a million points.

// appendValue writes {"resultType":…,"result":…} of the value of a query.
func appendValue(b []byte, v parser.Value) []byte {
	b = append(b, `{"resultType":"`...)
	b = append(b, v.Type()...)
	b = append(b, `","result":`...)
	switch v := v.(type) {
	case promql.Vector:
		b = appendList(b, v, appendSample)
	case promql.Matrix:
		b = appendList(b, v, appendSeries)
	case promql.Scalar:
		b = append(appendSeconds(append(b, '['), v.T), ',')
		b = append(appendFloat(b, v.V), ']')
	case promql.String:
		b = append(appendSeconds(append(b, '['), v.T), ',')
		b = append(appendString(b, v.V), ']')
	default:
		b = append(b, "null"...)
	}
	return append(b, '}')
}

func appendList[T any](b []byte, list []T, item func([]byte, *T) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, &list[i])
	}
	return append(b, ']')
}

func appendSample(b []byte, s *promql.Sample) []byte {
	b = appendLabels(append(b, `{"metric":`...), s.Metric)
	if s.H != nil {
		b = appendHPoint(append(b, `,"histogram":`...), &promql.HPoint{T: s.T, H: s.H})
	} else {
		b = appendFPoint(append(b, `,"value":`...), &promql.FPoint{T: s.T, F: s.F})
	}
	return append(b, '}')
}

func appendSeries(b []byte, s *promql.Series) []byte {
	b = appendLabels(append(b, `{"metric":`...), s.Metric)
	if len(s.Floats) > 0 {
		b = appendList(append(b, `,"values":`...), s.Floats, appendFPoint)
	}
	if len(s.Histograms) > 0 {
		b = appendList(append(b, `,"histograms":`...), s.Histograms, appendHPoint)
	}
	return append(b, '}')
}

func appendFPoint(b []byte, p *promql.FPoint) []byte {
	b = append(appendTime(append(b, '['), p.T), ',')
	return append(appendFloat(b, p.F), ']')
}

func appendHPoint(b []byte, p *promql.HPoint) []byte {
	b = append(appendTime(append(b, '['), p.T), ',')
	return append(appendHistogram(b, p.H), ']')
}

// appendHistogram writes count, sum and the buckets that are not empty, each
// as [rule, lower, upper, count] where rule 0 is (lower, upper], 1 is
// [lower, upper), 2 is (lower, upper) and 3 is [lower, upper].
func appendHistogram(b []byte, h *histogram.FloatHistogram) []byte {
	b = appendFloat(append(b, `{"count":`...), h.Count)
	b = appendFloat(append(b, `,"sum":`...), h.Sum)
	sep := `,"buckets":[`
	it := h.AllBucketIterator()
	for it.Next() {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		rule := byte('2')
		switch {
		case bucket.LowerInclusive && bucket.UpperInclusive:
			rule = '3'
		case bucket.LowerInclusive:
			rule = '1'
		case bucket.UpperInclusive:
			rule = '0'
		}
		b = append(append(append(b, sep...), '[', rule), ',')
		b = append(appendFloat(b, bucket.Lower), ',')
		b = append(appendFloat(b, bucket.Upper), ',')
		b = append(appendFloat(b, bucket.Count), ']')
		sep = ","
	}
	if sep == "," {
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendSeconds writes the time of a scalar or a string, where Prometheus has
// no trailing zeros.
func appendSeconds(b []byte, ms int64) []byte {
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}

// appendTime writes milliseconds as seconds: no digits after the point, or three.
func appendTime(b []byte, ms int64) []byte {
	if ms < 0 {
		b = append(b, '-')
	}
	abs := uint64(ms)
	if ms < 0 {
		abs = -abs // also right for the smallest int64
	}
	b = strconv.AppendUint(b, abs/1000, 10)
	if part := abs % 1000; part != 0 {
		b = append(b, '.', byte('0'+part/100), byte('0'+part/10%10), byte('0'+part%10))
	}
	return b
}

// appendFloat writes a float as a string, since JSON has no NaN or infinity.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	b = append(b, '"')
	b = strconv.AppendFloat(b, f, format, -1, 64)
	return append(b, '"')
}

func appendLabels(b []byte, l labels.Labels) []byte {
	b = append(b, '{')
	first := true
	l.Range(func(l labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, l.Name), ':')
		b = appendString(b, l.Value)
	})
	return append(b, '}')
}

// appendString writes a JSON string. Nearly all are plain ASCII.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\\<>&`, c) >= 0 {
			quoted, err := json.Marshal(s) // escapes <, > and & too, as Prometheus does
			if err != nil {
				panic("BUG: encode string: " + err.Error())
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
