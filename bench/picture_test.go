package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestDraw: the picture is XML, has a line of each, and leaves a gap where nothing was measured.
func TestDraw(t *testing.T) {
	p := panel{title: `of <a> & "b"`}
	p.add(grown{X: 1, Ours: 100, Hand: 50})
	p.add(grown{X: 10, Ours: 0, Hand: 60})
	p.add(grown{X: 1000, Ours: 180_000, Hand: 70})
	picture := draw([]panel{p, {title: "empty"}}, "2 processors")
	lines, corners, dots := 0, 0, 0
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
			for _, a := range e.Attr {
				if a.Name.Local == "points" {
					corners += len(strings.Fields(a.Value))
				}
			}
		} else if ok && e.Name.Local == "circle" {
			dots++
		}
	}
	if lines != 2 || corners != 5 || dots != 5 {
		t.Errorf("%d lines of %d corners and %d dots, want 2 of 5 and 5", lines, corners, dots)
	}
	if s := string(picture); !strings.Contains(s, "200k") || !strings.Contains(s, "2 processors") || strings.Contains(s, "NaN") {
		t.Error(s)
	}
}

func TestStride(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 4: 1, 99: 20, 120_000: 25_000, 160_000: 50_000, 5: 1} {
		if got := stride(most); got != want {
			t.Errorf("up to %v in steps of %v, want %v", most, got, want)
		}
	}
}
