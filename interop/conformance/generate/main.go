// Command generate makes the Go code of the conformance suite's messages: generate PROTO-DIR OUT-DIR.
//
// They are another project's, so they are made from its module when they are needed, and not kept here.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	folder = "connectrpc/conformance/v1"
	name   = "conformancev1"
)

var sources = []string{"config.proto", "service.proto", "server_compat.proto"}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: generate PROTO-DIR OUT-DIR")
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func generate(from, to string) error {
	files, err := compile(from)
	if err != nil {
		return err
	}
	made, err := plugin(files)
	if err != nil {
		return err
	}
	for _, f := range made {
		at := filepath.Join(to, name, path.Base(f.GetName()))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile returns the sources and what they import, each after its own imports.
func compile(from string) ([]*descriptorpb.FileDescriptorProto, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{from}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	linked, err := c.Compile(context.Background(), paths()...)
	if err != nil {
		return nil, err
	}
	var all []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		if r, ok := f.(linker.Result); ok {
			all = append(all, r.FileDescriptorProto())
			return
		}
		all = append(all, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range linked {
		add(f)
	}
	return all, nil
}

func paths() []string {
	all := slices.Clone(sources)
	for i := range all {
		all[i] = path.Join(folder, all[i])
	}
	return all
}

// plugin runs protoc-gen-go, which is a tool of this module.
func plugin(files []*descriptorpb.FileDescriptorProto) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	parameter := "paths=source_relative"
	for _, p := range paths() {
		parameter += ",M" + p + "=example/" + name
	}
	question, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{FileToGenerate: paths(), ProtoFile: files, Parameter: &parameter})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", "protoc-gen-go")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(question), os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("protoc-gen-go: %w", err)
	}
	var r pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return nil, err
	}
	if r.Error != nil {
		return nil, fmt.Errorf("protoc-gen-go: %s", r.GetError())
	}
	return r.GetFile(), nil
}
