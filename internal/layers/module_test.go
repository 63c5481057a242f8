package layers_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// root is the module's directory as seen from this package.
const root = "../.."

// pkgDir is one directory with Go files, parsed.
type pkgDir struct {
	path  string // slashed, without the module path; "." is the root
	files []goFile
}

type goFile struct {
	name string // slashed, from the root
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// library returns the files that are compiled into a build.
func (p pkgDir) library() []*ast.File {
	var files []*ast.File
	for _, f := range p.files {
		if !f.test {
			files = append(files, f.ast)
		}
	}
	return files
}

// public reports whether users may import p.
func (p pkgDir) public() bool {
	files := p.library()
	return len(files) > 0 && files[0].Name.Name != "main" && !roof(p.path) &&
		!strings.Contains("/"+p.path+"/", "/internal/")
}

// module parses this module once. Nested modules, testdata and what the go command ignores are left out.
func module(t testing.TB) []pkgDir {
	t.Helper()
	pkgs, err := parseModule()
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

var parseModule = sync.OnceValues(func() ([]pkgDir, error) {
	byPath := map[string]*pkgDir{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		rel := relative(name)
		if d.IsDir() {
			if rel != "." && (foreign(d.Name()) || nested(name)) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(rel) != ".go" || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		f, err := parseFile(name, rel)
		if err != nil || ignored(f.ast) {
			return gone(err)
		}
		dir := path.Dir(rel)
		if byPath[dir] == nil {
			byPath[dir] = &pkgDir{path: dir}
		}
		byPath[dir].files = append(byPath[dir].files, f)
		return nil
	})
	var pkgs []pkgDir
	for _, p := range byPath {
		pkgs = append(pkgs, *p)
	}
	slices.SortFunc(pkgs, func(a, b pkgDir) int { return strings.Compare(a.path, b.path) })
	return pkgs, err
})

func parseFile(name, rel string) (goFile, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return goFile{}, err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, rel, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return goFile{}, fmt.Errorf("does not parse: %w", err)
	}
	return goFile{name: rel, test: strings.HasSuffix(rel, "_test.go"), ast: f, fset: fset}, nil
}

// gone forgives what other tests, running at the same time, remove while we walk.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func relative(name string) string {
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return filepath.ToSlash(name)
	}
	return filepath.ToSlash(rel)
}

func foreign(dir string) bool {
	return strings.HasPrefix(dir, ".") || strings.HasPrefix(dir, "_") || dir == "testdata" || dir == "node_modules" || dir == "vendor"
}

func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// ignored reports whether a file belongs to no build ("//go:build ignore").
func ignored(f *ast.File) bool {
	if f == nil {
		return true
	}
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			if x, err := constraint.Parse(c.Text); err == nil && x.String() == "ignore" {
				return true
			}
		}
	}
	return false
}

func importsOf(pkgs []pkgDir) []unit {
	var units []unit
	for _, p := range pkgs {
		for _, f := range p.files {
			u := unit{pkg: p.path, file: f.name, test: f.test}
			for _, spec := range f.ast.Imports {
				if imp, err := strconv.Unquote(spec.Path.Value); err == nil {
					u.imports = append(u.imports, imp)
				}
			}
			units = append(units, u)
		}
	}
	return units
}
