package endpoint

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Service makes the endpoints of a struct of functions, which is a service's contract: servers, clients and fakes are
// values of it. Each field is one of the four function types and is served by its name with the leading capitals lowered
// as a word (Add: add, HTTPStatus: httpStatus), or the name its tag gives:
//
//	Add Unary[*AddRequest, *AddResponse] `rpc:"add,idempotent,timeout=2s" doc:"adds two numbers"`
//
// Tag words are idempotent, readonly, timeout=, idle=; `rpc:"-"` leaves a field out. Nil fields are not served; embedded
// structs are flattened. A method Options(field string) []Option on T adds to what both sides read; of those options each
// side takes what applies to it. It is asked for every field, also when an embedded struct lent it to T; if T has none, be
// it that two embedded structs have one each, those are asked for their own fields. opts are for all endpoints, outermost.
// Unexported and foreign fields, unknown tag words and a struct without a function to serve are faults, reported by Serve.
func Service[T any](impl T, opts ...Option) Servable {
	var g group
	v := reflect.New(reflect.TypeFor[T]()).Elem()
	v.Set(reflect.ValueOf(&impl).Elem())
	used := map[Option]bool{}
	errs := eachField(v, func(f contractField) {
		if e := f.fn.serve(func(s *settings) { f.configure(s, opts, used) }); e != nil {
			e.spec.Name = f.name
			g = append(g, e)
		}
	})
	if len(g) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%v has no function to serve", v.Type()))
	}
	errs = append(errs, unused(opts, used, len(g) > 0)...)
	if len(errs) > 0 {
		g = append(g, &Endpoint{spec: &Spec{}, err: errors.Join(errs...)})
	}
	return g
}

// Client fills a struct of functions with callers of the service's subjects: name + "." + the field's name. See Service
// for the contract. Faults are returned by each call.
func Client[T any](t Transport, name string, opts ...Option) T {
	var out T
	used := map[Option]bool{}
	var fields []contractField
	errs := eachField(reflect.ValueOf(&out).Elem(), func(f contractField) { fields = append(fields, f) })
	// The option faults are known only after all fields were made; a dry round finds them.
	for _, f := range fields {
		s := &settings{side: ClientSide, spec: &Spec{Kind: f.fn.kind()}}
		f.configure(s, opts, used)
	}
	errs = append(errs, unused(opts, used, len(fields) > 0)...)
	for _, f := range fields {
		f.fn.bind(t, name+"."+f.name, func(s *settings) {
			f.configure(s, opts, used)
			s.errs = append(s.errs, errs...)
		})
	}
	return out
}

type group []*Endpoint

func (g group) Endpoints() []*Endpoint { return slices.Clone(g) }

// contractFunc is what the four function types have in common behind reflection.
type contractFunc interface {
	kind() Kind
	bind(t Transport, subject string, configure func(*settings))
	serve(configure func(*settings)) *Endpoint
}

type contractField struct {
	field string // its name in Go
	name  string // on the wire
	fn    contractFunc
	opts  []Option // of the tag and of Options
}

// configure applies a group's options, then the field's own, whose values win.
func (f contractField) configure(s *settings, groupOpts []Option, used map[Option]bool) {
	s.group, s.used = true, used
	s.applyAll(groupOpts)
	s.group, s.used, s.shared, s.field = false, nil, true, f.field
	s.applyAll(f.opts)
}

// unused finds the options of a group that fitted none of its fields.
func unused(opts []Option, used map[Option]bool, some bool) []error {
	var errs []error
	for _, o := range opts {
		if o, ok := o.(*option); ok && some && o.kinds != nil && !used[o] {
			errs = append(errs, fmt.Errorf("option %s applies to no field", o.name))
		}
	}
	return errs
}

// eachField visits the functions of a struct, faulty ones too so that none stays nil, and returns the faults of its shape.
func eachField(v reflect.Value, visit func(contractField)) []error {
	if v.Kind() != reflect.Struct {
		return []error{fmt.Errorf("%v is not a struct of functions", v.Type())}
	}
	var errs []error
	names := map[string]string{}
	walkFields(v, nil, &errs, func(sf reflect.StructField, fn contractFunc, options fieldOptions) {
		f, faults := parseTag(sf, fn)
		errs = append(errs, faults...)
		if other, dup := names[f.name]; dup {
			errs = append(errs, fmt.Errorf("fields %s and %s are both named %q", other, sf.Name, f.name))
		}
		names[f.name] = sf.Name
		if options != nil {
			f.opts = append(f.opts, options(sf.Name)...)
		}
		visit(f)
	})
	return errs
}

// fieldOptions is the method Options of a contract.
type fieldOptions func(field string) []Option

// walkFields visits the fields of a struct with what is asked for their options: the method of the outermost struct that
// has one.
func walkFields(v reflect.Value, options fieldOptions, errs *[]error, visit func(reflect.StructField, contractFunc, fieldOptions)) {
	if options == nil {
		options = optionsOf(v)
	}
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		switch fn, ok := fieldFunc(v.Field(i), sf); {
		case sf.Tag.Get("rpc") == "-":
		case ok:
			visit(sf, fn, options)
		case sf.Anonymous && sf.Type.Kind() == reflect.Struct:
			walkFields(v.Field(i), options, errs, visit)
		case !sf.IsExported():
			*errs = append(*errs, fmt.Errorf("field %s of %v is not exported", sf.Name, v.Type()))
		default:
			*errs = append(*errs, fmt.Errorf("field %s of %v is %v, not one of the four function types", sf.Name, v.Type(), sf.Type))
		}
	}
}

func optionsOf(v reflect.Value) fieldOptions {
	v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()) // the type of an embedded struct may be unexported
	if o, ok := reflect.TypeAssert[interface{ Options(string) []Option }](v); ok {
		return o.Options
	}
	return nil
}

func fieldFunc(v reflect.Value, sf reflect.StructField) (contractFunc, bool) {
	if !sf.IsExported() {
		return nil, false
	}
	return reflect.TypeAssert[contractFunc](v.Addr())
}

func parseTag(sf reflect.StructField, fn contractFunc) (f contractField, faults []error) {
	f = contractField{field: sf.Name, name: lowerWord(sf.Name), fn: fn}
	if doc := sf.Tag.Get("doc"); doc != "" {
		f.opts = append(f.opts, Doc(doc))
	}
	tag := sf.Tag.Get("rpc")
	name, words, _ := strings.Cut(tag, ",")
	if name != "" {
		f.name = name
	}
	fault := func(why string) { faults = append(faults, fmt.Errorf("field %s: tag %q: %s", sf.Name, tag, why)) }
	if ValidateSubject("x."+f.name) != nil {
		fault("the name is no subject token")
	}
	for word := range strings.SplitSeq(words, ",") {
		opt, err := parseWord(word)
		switch {
		case err != nil:
			fault(err.Error())
		case opt != nil:
			f.opts = append(f.opts, opt)
		}
	}
	return f, faults
}

// parseWord returns the option that a word of a tag means, nil for an empty one.
func parseWord(word string) (Option, error) {
	key, value, has := strings.Cut(word, "=")
	switch {
	case word == "":
		return nil, nil
	case word == "idempotent":
		return Idempotent(), nil
	case word == "readonly":
		return ReadOnly(), nil
	case !has || key != "timeout" && key != "idle":
		return nil, fmt.Errorf("unknown word %q", word)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return nil, err
	}
	if key == "idle" {
		return IdleTimeout(d), nil
	}
	return Timeout(d), nil
}

// lowerWord lowers the leading capitals as a word: Add is add, ID is id, HTTPStatus is httpStatus.
func lowerWord(s string) string {
	r := []rune(s)
	n := 0
	for n < len(r) && unicode.IsUpper(r[n]) {
		n++
	}
	if n > 1 && n < len(r) && unicode.IsLower(r[n]) {
		n-- // the last capital begins the next word
	}
	for i := range n {
		r[i] = unicode.ToLower(r[i])
	}
	return string(r)
}

// configured carries the options of a contract's field through the constructors.
type configured func(*settings)

func (f configured) apply(s *settings) { f(s) }

func (f *Unary[Req, Resp]) kind() Kind        { return UnaryKind }
func (f *ServerStream[Req, Resp]) kind() Kind { return ServerStreamKind }
func (f *ClientStream[Req, Resp]) kind() Kind { return ClientStreamKind }
func (f *BidiStream[Req, Resp]) kind() Kind   { return BidiStreamKind }

func (f *Unary[Req, Resp]) bind(t Transport, subject string, c func(*settings)) {
	*f = Caller[Req, Resp](t, subject, configured(c))
}

func (f *ServerStream[Req, Resp]) bind(t Transport, subject string, c func(*settings)) {
	*f = ServerStreamCaller[Req, Resp](t, subject, configured(c))
}

func (f *ClientStream[Req, Resp]) bind(t Transport, subject string, c func(*settings)) {
	*f = ClientStreamCaller[Req, Resp](t, subject, configured(c))
}

func (f *BidiStream[Req, Resp]) bind(t Transport, subject string, c func(*settings)) {
	*f = BidiStreamCaller[Req, Resp](t, subject, configured(c))
}

func (f *Unary[Req, Resp]) serve(c func(*settings)) *Endpoint {
	if *f == nil {
		return nil
	}
	return New(*f, configured(c))
}

func (f *ServerStream[Req, Resp]) serve(c func(*settings)) *Endpoint {
	if *f == nil {
		return nil
	}
	return NewServerStream(*f, configured(c))
}

func (f *ClientStream[Req, Resp]) serve(c func(*settings)) *Endpoint {
	if *f == nil {
		return nil
	}
	return NewClientStream(*f, configured(c))
}

func (f *BidiStream[Req, Resp]) serve(c func(*settings)) *Endpoint {
	if *f == nil {
		return nil
	}
	return NewBidiStream(*f, configured(c))
}
