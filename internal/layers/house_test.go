package layers_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
)

// What only cmd and examples may use. A library that reads the environment, ends the process, listens to signals or
// shares a default can't live twice in one process, and surprises whoever did not write it.
var roofOnly = map[string][]string{
	"os":        {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv", "Exit"},
	"syscall":   {"Getenv", "Setenv", "Environ", "Exit"},
	"os/signal": {"Notify", "NotifyContext", "Ignore", "Reset"},
	"log":       {"Fatal", "Fatalf", "Fatalln", "Print", "Printf", "Println", "Panic", "Panicf", "Panicln", "Default", "SetOutput"},
	"log/slog":  {"SetDefault", "Debug", "Info", "Warn", "Error", "Log"},
	"flag": {
		"Parse", "Bool", "Int", "String", "Duration", "Var", "BoolVar", "IntVar", "StringVar", "DurationVar",
		"CommandLine", "Args", "Arg",
	},
	"net/http": {"DefaultServeMux", "DefaultClient", "Handle", "HandleFunc", "Get", "Head", "Post", "PostForm"},
	"github.com/prometheus/client_golang/prometheus": {"DefaultRegisterer", "DefaultGatherer", "Register", "MustRegister"},
	"go.opentelemetry.io/otel": {
		"GetTracerProvider", "SetTracerProvider", "GetMeterProvider", "SetMeterProvider",
		"GetTextMapPropagator", "SetTextMapPropagator", "Tracer", "Meter",
	},
}

// houseFaults returns what one library file does against the rules of the house.
func houseFaults(fset *token.FileSet, f *ast.File) []string {
	var faults []string
	report := func(n ast.Node, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	banned := map[string][]string{} // by the name the file gave the package
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil || roofOnly[imp] == nil {
			continue
		}
		name := path.Base(imp)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			report(spec, "a dot import of %s hides what is used of it", imp)
		}
		banned[name] = roofOnly[imp]
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				report(n, "func init: a package does nothing by being imported; prepare in a constructor, or in the variable itself")
			}
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && slices.Contains(banned[pkg.Name], n.Sel.Name) {
				report(n, "%s.%s is for cmd and examples: elsewhere it is the caller's to decide, so take it as a parameter", pkg.Name, n.Sel.Name)
			}
		}
		return true
	})
	return faults
}
