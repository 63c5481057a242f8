package protobuf_test

import (
	"fmt"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec/protobuf"
)

func Example() {
	data, _ := protobuf.Binary.Append(nil, wrapperspb.String("hi"))
	fmt.Printf("%x\n", data)
	var got wrapperspb.StringValue
	err := protobuf.JSON.Decode([]byte(`"hello"`), &got)
	fmt.Println(got.GetValue(), err)
	// Output:
	// 0a026869
	// hello <nil>
}
