package layers_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// deps lists what a package compiles: for each package a line of its import path and its module, "" for std.
func deps(t *testing.T, pkgs ...string) [][2]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{
		"list", "-deps", "-f",
		"{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}",
	}, pkgs...)...)
	cmd.Dir = root
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list [][2]string
	for line := range strings.Lines(string(out)) {
		path, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, [2]string{path, module})
	}
	return list
}

// TestBusIsLight holds the promise that importing bus compiles six modules besides this one.
func TestBusIsLight(t *testing.T) {
	var modules []string
	for _, d := range deps(t, "./bus") {
		if m := d[1]; m != "" && m != "postbus.example" && !slices.Contains(modules, m) {
			modules = append(modules, m)
		}
	}
	if len(modules) > 6 || len(modules) == 0 {
		t.Errorf("bus compiles %d modules, want 1 to 6: %q", len(modules), modules)
	}
}

// TestCoreIsStd holds the promise that the core needs the standard library only.
func TestCoreIsStd(t *testing.T) {
	list := deps(t, "./endpoint", "./codec")
	if len(list) == 0 {
		t.Fatal("nothing listed")
	}
	for _, d := range list {
		if d[1] != "" && d[1] != "postbus.example" {
			t.Errorf("%s of %s", d[0], d[1])
		}
	}
}
