package main

import "math"

// line is a least-squares fit of a straight line.
type line struct {
	mean  float64
	slope float64 // per second
	noise float64 // standard deviation around the line
}

func fit(t, y []float64) line {
	n := float64(len(t))
	if n < 2 {
		return line{}
	}
	var mt, my float64
	for i := range t {
		mt += t[i] / n
		my += y[i] / n
	}
	var sxy, sxx float64
	for i := range t {
		sxy += (t[i] - mt) * (y[i] - my)
		sxx += (t[i] - mt) * (t[i] - mt)
	}
	if sxx == 0 {
		return line{mean: my}
	}
	l := line{mean: my, slope: sxy / sxx}
	var rest float64
	for i := range t {
		d := y[i] - my - l.slope*(t[i]-mt)
		rest += d * d
	}
	l.noise = math.Sqrt(rest / n)
	return l
}
