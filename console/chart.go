package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A chart is a picture of one or two series over time, drawn by the server as paths of SVG. What it shows is also said in
// words and, on demand, in a table; two series differ by their strokes and not by colour alone.
type chart struct {
	ID, Title string
	Summary   string // such as "now 12, between 3 and 20"
	Missing   string // why there is nothing to draw; empty: there is

	Lines []chartLine
	Ticks []string // of the values, the highest first
	Times []string // from the left to the right
	Rows  []chartRow
}

// A chartLine is a series as SVG draws it, in a box of chartWidth and chartHeight.
type chartLine struct {
	Name string
	Line string // the d of a path
	Area string // the same down to the bottom
}

// A chartRow is a row of the table.
type chartRow struct {
	Time   time.Time
	Values []string
}

const (
	chartWidth  = 600
	chartHeight = 120
	chartTicks  = 2 // steps of the scale
	chartTimes  = 4 // steps of the time
	chartRows   = 12
)

// A series is a name and values, NaN where nothing is known.
type series struct {
	name   string
	values []float64
}

// newChart draws series whose values are of the same times, which are evenly spaced or nearly so.
func newChart(id, title string, from, to time.Time, times []time.Time, all ...series) chart {
	c := chart{ID: id, Title: title}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range all[0].values {
		if !math.IsNaN(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	if math.IsInf(low, 1) {
		c.Missing = "Nothing has been read yet."
		return c
	}
	top := 0.0
	for _, s := range all {
		for _, v := range s.values {
			if v > top { // false for NaN
				top = v
			}
		}
	}
	top = niceTop(top)
	for i := range chartTicks + 1 {
		c.Ticks = append(c.Ticks, quantity(top*float64(chartTicks-i)/chartTicks))
	}
	span := to.Sub(from)
	for i := range chartTimes + 1 {
		c.Times = append(c.Times, from.Add(span*time.Duration(i)/chartTimes).UTC().Format("15:04"))
	}
	place := func(i int, v float64) (x, y float64) {
		return float64(times[i].Sub(from)) / float64(span) * chartWidth, chartHeight - v/top*chartHeight
	}
	for _, s := range all {
		c.Lines = append(c.Lines, drawLine(s, place))
	}
	last := all[0].values[len(all[0].values)-1]
	c.Summary = fmt.Sprintf("between %s and %s", quantity(low), quantity(high))
	if !math.IsNaN(last) {
		c.Summary = fmt.Sprintf("now %s, %s", quantity(last), c.Summary)
	}
	for i := range times {
		if step := max(1, len(times)/chartRows); (len(times)-1-i)%step != 0 {
			continue
		}
		row := chartRow{Time: times[i]}
		for _, s := range all {
			row.Values = append(row.Values, quantity(s.values[i]))
		}
		c.Rows = append(c.Rows, row)
	}
	return c
}

// drawLine makes the paths of a series, with gaps where nothing is known.
func drawLine(s series, place func(int, float64) (float64, float64)) chartLine {
	var line, area strings.Builder
	begun, lastX := false, 0.0
	end := func() {
		if begun {
			fmt.Fprintf(&area, "L%.1f %dZ", lastX, chartHeight)
		}
		begun = false
	}
	for i, v := range s.values {
		if math.IsNaN(v) {
			end()
			continue
		}
		x, y := place(i, v)
		if !begun {
			fmt.Fprintf(&line, "M%.1f %.1f", x, y)
			fmt.Fprintf(&area, "M%.1f %dL%.1f %.1f", x, chartHeight, x, y)
			begun = true
			if i == len(s.values)-1 || math.IsNaN(s.values[i+1]) { // alone: a short dash
				x++
				fmt.Fprintf(&line, "L%.1f %.1f", x, y)
			}
		} else {
			fmt.Fprintf(&line, "L%.1f %.1f", x, y)
			fmt.Fprintf(&area, "L%.1f %.1f", x, y)
		}
		lastX = x
	}
	end()
	return chartLine{Name: s.name, Line: line.String(), Area: area.String()}
}

// niceTop is the top of a scale on which v has a place: 2, 4, 10, 20, 40, 100, ...
func niceTop(v float64) float64 {
	if v <= 0 {
		return 2
	}
	scale := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 4, 6, 8} {
		if top := step * scale; v <= top && (top >= 2 || v < 1) {
			return top
		}
	}
	return 10 * scale
}

// quantity writes a number so that people read it: few digits, none behind the point where it is large.
func quantity(v float64) string {
	switch {
	case math.IsNaN(v):
		return "not known"
	case v >= 10 || v == math.Trunc(v):
		return number(int64(math.Round(v)))
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}
