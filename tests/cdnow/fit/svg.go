package fit

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// The plot: two panels side by side, in units of the SVG's own.
const (
	width, height = 1040, 440
	panelTop      = 76
	panelHeight   = 292
	colorActual   = "#1f2937"
	colorForecast = "#d9480f"
	colorGrid     = "#e5e7eb"
	colorText     = "#4b5563"
)

// panel maps values to places in the drawing.
type panel struct {
	b           *bytes.Buffer
	left, width float64
	maxX, maxY  float64
}

func (p panel) x(v float64) float64 { return p.left + v/p.maxX*p.width }

func (p panel) y(v float64) float64 { return panelTop + panelHeight*(1-v/p.maxY) }

func (p panel) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(p.b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n", x, y, anchor, class, text)
}

func (p panel) rows(step float64) {
	for v := 0.0; v <= p.maxY; v += step {
		fmt.Fprintf(p.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", p.left, p.y(v), p.left+p.width, p.y(v), colorGrid)
		p.text(p.left-8, p.y(v)+4, "end", "tick", strconv.FormatFloat(v, 'f', -1, 64))
	}
}

func (p panel) line(points []float64, style string) {
	fmt.Fprintf(p.b, `<polyline fill="none" %s points="`, style)
	for i, v := range points {
		if i > 0 {
			p.b.WriteByte(' ')
		}
		fmt.Fprintf(p.b, "%.1f,%.1f", p.x(float64(i)), p.y(v))
	}
	p.b.WriteString("\"/>\n")
}

func (p panel) key(x, y float64, style, text string) {
	fmt.Fprintf(p.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x, y-4, x+26, y-4, style)
	p.text(x+34, y, "start", "label", text)
}

const (
	styleActual   = `stroke="` + colorActual + `" stroke-width="2.2"`
	styleForecast = `stroke="` + colorForecast + `" stroke-width="2.2" stroke-dasharray="7 4"`
)

// svg draws both comparisons.
func (f *forecast) svg() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="Forecast and actual repeat purchases of the CDNOW sample">
<style>
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: %s }
.title { font-size: 16px; font-weight: 600; fill: %s }
.label { font-size: 13px } .tick { font-size: 12px }
</style>
<rect width="100%%" height="100%%" fill="#ffffff"/>
`, width, height, colorText, colorActual)
	f.drawWeeks(&b)
	f.drawFrequencies(&b)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (f *forecast) drawWeeks(b *bytes.Buffer) {
	actual, expected := []float64{0}, []float64{0}
	top := 0.0
	for _, c := range f.byWeek {
		actual, expected = append(actual, c.actual), append(expected, c.expected)
		top = math.Max(top, math.Max(c.actual, c.expected))
	}
	p := panel{b: b, left: 68, width: 500, maxX: float64(len(f.byWeek)), maxY: 1000 * math.Ceil(top/1000)}
	p.text(p.left, 30, "start", "title", "Repeat purchases since the start")
	p.text(p.left, 51, "start", "label", "the model has seen the weeks to the left of the line only")
	p.rows(1000)
	for w := 0; w <= len(f.byWeek); w += 13 {
		p.text(p.x(float64(w)), panelTop+panelHeight+20, "middle", "tick", strconv.Itoa(w))
	}
	p.text(p.left+p.width/2, panelTop+panelHeight+44, "middle", "label", "week")

	split := p.x(float64(f.calibration))
	fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#f3f4f6" opacity="0.6"/>`+"\n", split, panelTop, p.left+p.width-split, panelHeight)
	fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#6b7280" stroke-dasharray="2 3"/>`+"\n", split, panelTop, split, panelTop+panelHeight)
	p.text(split-8, panelTop+panelHeight-12, "end", "label", "calibration")
	p.text(split+8, panelTop+panelHeight-12, "start", "label", "holdout")

	p.line(actual, styleActual)
	p.line(expected, styleForecast)
	p.key(p.left+16, panelTop+26, styleActual, "actual")
	p.key(p.left+16, panelTop+48, styleForecast, "BG/NBD forecast")
}

func (f *forecast) drawFrequencies(b *bytes.Buffer) {
	top := 0.0
	for _, c := range f.byFrequency {
		top = math.Max(top, math.Max(c.actual, c.expected))
	}
	p := panel{b: b, left: 636, width: 380, maxX: float64(len(f.byFrequency)), maxY: math.Ceil(top)}
	p.text(p.left, 30, "start", "title", "Purchases per customer in the holdout")
	p.text(p.left, 51, "start", "label", "by how many repeat purchases there were before")
	p.rows(1)
	slot := p.width / p.maxX
	for bin, c := range f.byFrequency {
		middle := p.x(float64(bin) + 0.5)
		bar := func(x, v float64, color string) {
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, p.y(v), slot*0.36, p.y(0)-p.y(v), color)
		}
		bar(middle-slot*0.38, c.actual, colorActual)
		bar(middle+slot*0.02, c.expected, colorForecast)
		p.text(middle, panelTop+panelHeight+20, "middle", "tick", frequency(bin))
	}
	p.text(p.left+p.width/2, panelTop+panelHeight+44, "middle", "label", "repeat purchases in the calibration")
	p.key(p.left+16, panelTop+18, `stroke="`+colorActual+`" stroke-width="10"`, "actual")
	p.key(p.left+16, panelTop+36, `stroke="`+colorForecast+`" stroke-width="10"`, "BG/NBD expectation")
}
