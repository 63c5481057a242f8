package main

import (
	"encoding/json"
	"os"

	"postbus.example/bench/harness"
)

// report is all that was measured, for -json.
type report struct {
	Machine string    `json:"machine"`
	Figures []verdict `json:"figures"`
	Growth  []grown   `json:"growth,omitempty"`
	Samples []sample  `json:"samples"`
	foreign []float64
}

type sample struct {
	harness.Point
	Rounds []*harness.Result `json:"rounds"`
}

func (r *report) add(samples harness.Samples) {
	for p, results := range samples {
		r.Samples = append(r.Samples, sample{p, results})
		r.foreign = append(r.foreign, harness.Values(results, func(r *harness.Result) float64 { return r.Foreign })...)
	}
}

func (r *report) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644) //nolint:gosec // anybody may read it
}
