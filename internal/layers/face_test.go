package layers_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

const faces = "testdata/api"

var update = flag.Bool("update", false, "rewrite the golden files of the public faces")

// TestFaces holds what each public package shows against its golden file, so that every growth stands in a diff and
// nothing that users compile against changes by accident.
func TestFaces(t *testing.T) {
	golden := map[string]bool{}
	for _, pkg := range module(t) {
		if !pkg.public() {
			continue
		}
		name := strings.ReplaceAll(pkg.path, "/", ".") + ".txt"
		golden[name] = true
		t.Run(pkg.path, func(t *testing.T) { compareFace(t, filepath.Join(faces, name), header(pkg.path)+face(pkg.library())) })
	}
	entries, err := os.ReadDir(faces)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case golden[e.Name()]:
		case *update:
			assert.NoError(t, os.Remove(filepath.Join(faces, e.Name())))
		default:
			t.Errorf("%s/%s belongs to no public package (any more); go test ./internal/layers -update removes it", faces, e.Name())
		}
	}
}

func header(pkg string) string {
	return fmt.Sprintf("# The public face of %s/%s: growth is a decision, a line less breaks users.\n"+
		"# Rewrite with: go test ./internal/layers -update\n", modulePath, pkg)
}

func compareFace(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		assert.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		assert.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: a public package without a golden face. Is it meant to be public? Then: go test ./internal/layers -update", err)
	}
	if string(want) != got {
		t.Errorf("the public face differs from %s:\n%sIf each line is meant: go test ./internal/layers -update, and a line in CHANGELOG.md",
			file, lineDiff(string(want), got))
	}
}

// lineDiff lists the lines that only one of two texts has; order is left to the reader of the real diff.
func lineDiff(old, now string) string {
	oldLines, newLines := strings.SplitAfter(old, "\n"), strings.SplitAfter(now, "\n")
	var diff strings.Builder
	for _, l := range oldLines {
		if !slices.Contains(newLines, l) {
			diff.WriteString("- " + l)
		}
	}
	for _, l := range newLines {
		if !slices.Contains(oldLines, l) {
			diff.WriteString("+ " + l)
		}
	}
	return diff.String()
}

// face returns the exported names of a package, one to a line: constants, variables and functions by name, then each
// type with its fields in their order, its interface methods and its methods by name.
func face(files []*ast.File) string {
	b := &faceBuilder{types: map[string][]string{}, methods: map[string][]string{}}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				b.fn(d)
			case *ast.GenDecl:
				b.gen(d)
			}
		}
	}
	var out []string
	for _, group := range [][]string{b.consts, b.vars, b.funcs} {
		out = append(out, sorted(group)...)
	}
	names := make([]string, 0, len(b.types))
	for name := range b.types {
		names = append(names, name)
	}
	for _, name := range sorted(names) {
		out = append(out, b.types[name]...)
		out = append(out, sorted(b.methods[name])...)
	}
	return strings.Join(out, "\n") + "\n"
}

type faceBuilder struct {
	consts, vars, funcs []string
	types, methods      map[string][]string // by the name of the type
}

func (b *faceBuilder) fn(d *ast.FuncDecl) {
	if !d.Name.IsExported() {
		return
	}
	if d.Recv == nil {
		b.funcs = append(b.funcs, "func "+d.Name.Name+typeParams(d.Type.TypeParams)+signature(d.Type))
		return
	}
	recv := types.ExprString(d.Recv.List[0].Type)
	if base := receiver(d); ast.IsExported(base) {
		b.methods[base] = append(b.methods[base], fmt.Sprintf("method (%s) %s%s", recv, d.Name.Name, signature(d.Type)))
	}
}

func (b *faceBuilder) gen(d *ast.GenDecl) {
	var last ast.Expr // of constants, whose type is repeated with iota
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				b.types[s.Name.Name] = typeLines(s)
			}
		case *ast.ValueSpec:
			if s.Type != nil || s.Values != nil {
				last = s.Type
			}
			b.values(d.Tok, s, last)
		}
	}
}

func (b *faceBuilder) values(tok token.Token, s *ast.ValueSpec, typ ast.Expr) {
	for i, name := range s.Names {
		if !name.IsExported() {
			continue
		}
		line := tok.String() + " " + name.Name
		if typ != nil {
			line += " " + types.ExprString(typ)
		}
		if tok == token.VAR {
			b.vars = append(b.vars, line)
			continue
		}
		if i < len(s.Values) {
			if lit, ok := s.Values[i].(*ast.BasicLit); ok {
				line += " = " + lit.Value
			}
		}
		b.consts = append(b.consts, line)
	}
}

func typeLines(s *ast.TypeSpec) []string {
	head := "type " + s.Name.Name
	first := head + typeParams(s.TypeParams)
	if s.Assign.IsValid() {
		return []string{first + " = " + types.ExprString(s.Type)}
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		lines := []string{first + " struct"}
		for _, f := range t.Fields.List {
			lines = append(lines, fieldLines(head, f)...)
		}
		return lines
	case *ast.InterfaceType:
		return append([]string{first + " interface"}, sorted(interfaceLines(head, t))...)
	default:
		return []string{first + " " + types.ExprString(s.Type)}
	}
}

func fieldLines(head string, f *ast.Field) []string {
	typ, tag := types.ExprString(f.Type), ""
	if f.Tag != nil {
		tag = " " + f.Tag.Value
	}
	if f.Names == nil {
		return []string{head + " struct, embeds " + typ + tag}
	}
	var lines []string
	for _, name := range f.Names {
		if name.IsExported() {
			lines = append(lines, head+" struct, "+name.Name+" "+typ+tag)
		}
	}
	return lines
}

func interfaceLines(head string, t *ast.InterfaceType) []string {
	var lines []string
	sealed := false
	for _, m := range t.Methods.List {
		if m.Names == nil {
			lines = append(lines, head+" interface, embeds "+types.ExprString(m.Type))
			continue
		}
		for _, name := range m.Names {
			if fn, ok := m.Type.(*ast.FuncType); ok && name.IsExported() {
				lines = append(lines, head+" interface, "+name.Name+signature(fn))
			}
			sealed = sealed || !name.IsExported()
		}
	}
	if sealed {
		lines = append(lines, head+" interface, unexported methods")
	}
	return lines
}

// receiver returns the name of the type that d is a method of.
func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.ParenExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

func signature(f *ast.FuncType) string {
	return strings.TrimPrefix(types.ExprString(&ast.FuncType{Params: f.Params, Results: f.Results}), "func")
}

func typeParams(list *ast.FieldList) string {
	if list == nil {
		return ""
	}
	params := make([]string, 0, len(list.List))
	for _, f := range list.List {
		names := make([]string, 0, len(f.Names))
		for _, n := range f.Names {
			names = append(names, n.Name)
		}
		params = append(params, strings.Join(names, ", ")+" "+types.ExprString(f.Type))
	}
	return "[" + strings.Join(params, ", ") + "]"
}

// sorted sorts in place and drops doubles, such as the versions of a function for several platforms.
func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func TestFaceShowsWhatIsExported(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x
// One doc for all.
const (
	A Kind = iota
	B
	c
	D = "d"
)
var E, f = 1, 2
func G[T, U any, V ~int](
	ctx context.Context,
	opts ...func(T) error,
) (n int, err error) { return 0, nil }
func h() {}
type Kind uint8
func (k *Kind) String() string { return "" }
func (k Kind) hidden() {}
type S[T any] struct {
	io.Reader
	X, y int `+"`json:\"x\"`"+`
	F    func(a, b int) chan<- T
}
func (s *S[T]) Do(x T) {}
type t struct{ X int }
func (t) Public() {}
type I interface { Do(x int) (y int); fmt.Stringer; seal() }
type L = S[int]
type Fn func(context.Context) error
`, parser.SkipObjectResolution)
	assert.NoError(t, err)
	want := strings.TrimPrefix(`
const A Kind
const B Kind
const D = "d"
var E
func G[T, U any, V ~int](ctx context.Context, opts ...func(T) error) (n int, err error)
type Fn func(context.Context) error
type I interface
type I interface, Do(x int) (y int)
type I interface, embeds fmt.Stringer
type I interface, unexported methods
type Kind uint8
method (*Kind) String() string
type L = S[int]
type S[T any] struct
type S struct, embeds io.Reader
type S struct, X int `+"`json:\"x\"`"+`
type S struct, F func(a, b int) chan<- T
method (*S[T]) Do(x T)
`, "\n")
	got := face([]*ast.File{f, f}) // twice: doubles are dropped
	if got != want {
		t.Fatalf("differs:\n%s\ngot\n%s", lineDiff(want, got), got)
	}
}

func TestFaceDiff(t *testing.T) {
	assert.Equal(t, lineDiff("func A()\nfunc B()\n", "func B()\nfunc C()\n"), "- func A()\n+ func C()\n")
	assert.Equal(t, lineDiff("x\n", "x\n"), "")
}
