package layers_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"postbus.example/internal/assert"
)

// TestEverythingIsDocumented asks each package for a package comment, and each exported name of the public ones for a
// comment of its own or, in a group of constants or variables, of its group.
func TestEverythingIsDocumented(t *testing.T) {
	for _, pkg := range module(t) {
		if files := pkg.library(); len(files) > 0 && !packageDoc(files) {
			t.Errorf("%s has no package comment; its first sentence is the idea", pkg.path)
		}
		if !pkg.public() {
			continue
		}
		for _, f := range pkg.files {
			if f.test || ast.IsGenerated(f.ast) {
				continue
			}
			for _, fault := range undocumented(f.fset, f.ast) {
				t.Error(fault)
			}
		}
	}
}

func packageDoc(files []*ast.File) bool {
	for _, f := range files {
		if said(f.Doc) {
			return true
		}
	}
	return false
}

// said reports whether a comment has text: directives alone say nothing.
func said(docs ...*ast.CommentGroup) bool {
	for _, d := range docs {
		if strings.TrimSpace(d.Text()) != "" {
			return true
		}
	}
	return false
}

func undocumented(fset *token.FileSet, f *ast.File) []string {
	var faults []string
	report := func(name *ast.Ident, of string) {
		faults = append(faults, fmt.Sprintf("%s: %s%s is exported and has no comment", fset.Position(name.Pos()), of, name.Name))
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			switch {
			case !d.Name.IsExported() || said(d.Doc):
			case d.Recv == nil:
				report(d.Name, "")
			case ast.IsExported(receiver(d)):
				report(d.Name, receiver(d)+".")
			}
		case *ast.GenDecl:
			for _, name := range silent(d) {
				report(name, "")
			}
		}
	}
	return faults
}

// silent returns the exported names of d that nothing is said about.
func silent(d *ast.GenDecl) []*ast.Ident {
	var names []*ast.Ident
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			// A comment on a group of types is about none of them, unless the group is one type without parentheses.
			if s.Name.IsExported() && !said(s.Doc, s.Comment) && (d.Lparen.IsValid() || !said(d.Doc)) {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && !said(s.Doc, s.Comment, d.Doc) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func TestUndocumentedNamesAreFound(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", `package x
func A() {}
// B is documented.
func B() {}
//go:noinline
func C() {}
type D int
func (D) E() {}
func (d) F() {}
type d int
// The group.
const (
	G = 1
	H = 2
)
var (
	I = 1 // I has its own.
	J = 2
	k = 3
)
// The group is about nothing.
type (
	L int
)
`, parser.ParseComments|parser.SkipObjectResolution)
	assert.NoError(t, err)
	var got []string
	for _, fault := range undocumented(fset, f) {
		_, fault, _ = strings.Cut(fault, ": ")
		got = append(got, strings.TrimSuffix(fault, " is exported and has no comment"))
	}
	assert.Equal(t, strings.Join(got, " "), "A C D D.E J L")
	assert.Equal(t, packageDoc([]*ast.File{f}), false)
}

// Written in pieces, so that this file is free of what it looks for.
var leftover = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

// TestNothingIsLeftOver walks all files of the repository: what is still to be done belongs in an issue.
func TestNothingIsLeftOver(t *testing.T) {
	skip := map[string]bool{"go.sum": true, "package-lock.json": true} // checksums read like anything
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", ".bin", "node_modules":
				return fs.SkipDir
			}
			if strings.HasSuffix(relative(name), "testdata/fuzz") { // corpora read like anything
				return fs.SkipDir
			}
			return nil
		}
		if skip[d.Name()] || !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil || !utf8.Valid(data) {
			return gone(err)
		}
		for i, line := range strings.Split(string(data), "\n") {
			if marker := leftover.FindString(line); marker != "" {
				t.Errorf("%s:%d: leftover %s", relative(name), i+1, marker)
			}
		}
		return nil
	})
	assert.NoError(t, err)
}

func TestLeftoversAreFound(t *testing.T) {
	for _, s := range []string{"// TO" + "DO: x", "context.TO" + "DO()", "FIX" + "ME(me)"} {
		assert.True(t, leftover.MatchString(s), s)
	}
	for _, s := range []string{"mktemp -d x.XXXXXX", "TODOS", "todo list"} {
		assert.True(t, !leftover.MatchString(s), s)
	}
}

// readmeLines is what fits in one sitting; the rest belongs in docs/.
const readmeLines = 200

// TestReadme keeps the README short, and honest about how to test: CI runs its very command.
func TestReadme(t *testing.T) {
	readme := read(t, "README.md")
	if n := strings.Count(readme, "\n"); n > readmeLines {
		t.Errorf("README.md has %d lines, %d at most: move what is for few readers to docs/", n, readmeLines)
	}
	const command = "go test -shuffle=on ./..."
	for _, file := range []string{"README.md", ".ci/run", "CONTRIBUTING.md"} {
		if !strings.Contains(read(t, file), command) {
			t.Errorf("%s does not give the test command %q", file, command)
		}
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
