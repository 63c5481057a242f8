package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
)

// The picture is a column of panels; each has one curve of ours and one of nats.go by hand, over a logarithmic axis.
const (
	panelWidth, panelHeight = 640, 240
	left, right, top, foot  = 70, 30, 34, 46
)

type panel struct {
	title      string
	xs         []float64
	ours, hand []float64
}

// add takes a point; what could not be measured leaves a gap.
func (p *panel) add(g grown) {
	p.xs = append(p.xs, float64(g.X))
	p.ours = append(p.ours, g.Ours)
	p.hand = append(p.hand, g.Hand)
}

// draw makes an SVG, readable on light and dark ground.
func draw(panels []panel, machine string) []byte {
	var b bytes.Buffer
	height := len(panels)*panelHeight + 2*top
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", panelWidth, height)
	b.WriteString("<style>text{fill:#888} .axis{stroke:#888;stroke-width:1} .grid{stroke:#8884;stroke-width:1} " +
		"polyline{fill:none;stroke-width:2} .ours{stroke:#d9480f;fill:#d9480f} .hand{stroke:#4c7dbd;fill:#4c7dbd}</style>\n")
	fmt.Fprintf(&b, `<text x="%d" y="22">calls a second: <tspan class="ours" style="stroke:none">Postbus</tspan>, <tspan class="hand" style="stroke:none">raw nats.go</tspan></text>`+"\n", left)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(0 %d)">`+"\n", top+i*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="10">%s</text>`+"\n</svg>\n", left, height-12, html.EscapeString(machine))
	return b.Bytes()
}

func (p *panel) draw(b *bytes.Buffer) {
	if len(p.xs) == 0 {
		return
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, top-12, html.EscapeString(p.title))
	step := stride(max(highest(p.ours), highest(p.hand)))
	most := step * math.Ceil(max(highest(p.ours), highest(p.hand), 1)/step)
	first, last := math.Log(p.xs[0]), math.Log(p.xs[len(p.xs)-1])
	x := func(v float64) float64 {
		return left + (math.Log(v)-first)/max(last-first, 1e-9)*(panelWidth-left-right)
	}
	y := func(v float64) float64 { return panelHeight - foot - v/most*(panelHeight-foot-top) }
	for v := 0.0; v <= most; v += step {
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, panelWidth-right, y(v), y(v), left-8, y(v)+4, thousands(v))
	}
	for _, v := range p.xs {
		fmt.Fprintf(b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x(v), x(v), panelHeight-foot, panelHeight-foot+5, x(v), panelHeight-foot+20, thousands(v))
	}
	line(b, "hand", p.xs, p.hand, x, y)
	line(b, "ours", p.xs, p.ours, x, y)
}

func line(b *bytes.Buffer, class string, xs, values []float64, x, y func(float64) float64) {
	fmt.Fprintf(b, `<polyline class="%s" style="fill:none" points="`, class)
	for i, v := range values {
		if v > 0 {
			fmt.Fprintf(b, "%.1f,%.1f ", x(xs[i]), y(v))
		}
	}
	b.WriteString("\"/>\n")
	for i, v := range values {
		if v > 0 {
			fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`+"\n", class, x(xs[i]), y(v))
		}
	}
}

// highest is the largest number, of none 0.
func highest(values []float64) float64 {
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	return most
}

// stride is a round number that about four of reach most.
func stride(most float64) float64 {
	if most <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, m := range []float64{0.1, 0.2, 0.25, 0.5, 1, 2} {
		if most/(unit*m) <= 5 {
			return unit * m
		}
	}
	return unit * 5
}

func thousands(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v/1000, 'f', -1, 64) + "k"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
