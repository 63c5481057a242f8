package protobuf

import (
	"reflect"

	"google.golang.org/protobuf/proto"

	"postbus.example/codec"
)

var protoMessage = reflect.TypeFor[proto.Message]()

// isMessage reports whether messages of type t are proto messages: T, *T, and **T, which a transport holds that keeps
// messages as *T.
func isMessage(t reflect.Type) bool {
	switch {
	case t == nil || embedsMessage(t):
		return false
	case t.Kind() != reflect.Pointer:
		return t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(protoMessage)
	case t.Implements(protoMessage):
		return true
	}
	return t.Elem().Kind() == reflect.Pointer && t.Elem().Implements(protoMessage)
}

// embedsMessage finds structs that are a proto.Message only by promotion: the rest of them would be lost. Generated
// types embed nothing.
func embedsMessage(t reflect.Type) bool {
	for range 2 {
		if t != nil && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	if t == nil || t.Kind() != reflect.Struct || !reflect.PointerTo(t).Implements(protoMessage) {
		return false
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && (f.Type.Implements(protoMessage) || reflect.PointerTo(f.Type).Implements(protoMessage)) {
			return true
		}
	}
	return false
}

// refuse is the verdict on a type that is no message, or one by promotion only.
func refuse(name string, t reflect.Type) error {
	reason := "protobuf messages are generated types, used as pointers"
	if embedsMessage(t) {
		reason = "it embeds a message, whose methods would encode that message alone; make it a field of a message"
	}
	return &codec.TypeError{Codec: name, Type: t, Path: typeName(t), Reason: reason}
}

func typeName(t reflect.Type) string {
	switch {
	case t == nil:
		return "nil"
	case t.Kind() == reflect.Pointer && t.Elem().Name() != "":
		return t.Elem().Name()
	case t.Name() != "":
		return t.Name()
	}
	return t.String()
}
