package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// input is what a call sends: a text, a file, or standard input.
type input struct {
	mediaType string
	given     bool // false: {} for a single message, standard input for a stream
	from      io.Reader
	file      *os.File
	read      []byte // what was taken as a whole, for whoever needs it again
	taken     bool
}

func (r *request) input(p *process) (*input, error) {
	in := &input{mediaType: r.MediaType, given: r.Body != "", from: p.in}
	switch name, isFile := strings.CutPrefix(r.Body, "@"); {
	case r.Body == "" || r.Body == "-":
	case isFile:
		f, err := open(name)
		if err != nil {
			return nil, &ioError{err}
		}
		in.from, in.file = f, f
	default:
		in.from = strings.NewReader(r.Body)
	}
	return in, nil
}

func (in *input) close() {
	if in.file != nil {
		_ = in.file.Close() // it was read only
	}
}

// whole takes everything as one message. Standard input may never end; ctx does.
func (in *input) whole(ctx context.Context) (*codec.Payload, error) {
	if !in.given {
		return &codec.Payload{MediaType: in.mediaType, Data: []byte("{}")}, nil
	}
	if !in.taken {
		all := make(chan error, 1)
		go func() {
			data, err := io.ReadAll(in.from)
			in.read = data
			all <- err
		}()
		select {
		case err := <-all:
			if err != nil {
				return nil, &ioError{err}
			}
		case <-ctx.Done():
			return nil, endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
		}
		in.taken = true
	}
	return in.payload(in.read)
}

// errNotJSON is the cause of a request that was not sent.
var errNotJSON = errors.New("the request is not JSON")

// payload checks what can be checked before it goes: a typing error in JSON has a place.
func (in *input) payload(data []byte) (*codec.Payload, error) {
	if in.mediaType == "application/json" {
		var v json.RawMessage
		if err := json.Unmarshal(data, &v); err != nil {
			text := err.Error()
			if s, ok := errors.AsType[*json.SyntaxError](err); ok {
				text = fmt.Sprintf("%v, at byte %d", err, s.Offset)
			}
			return nil, endpoint.InvalidArgument.Wrap(errNotJSON, errNotJSON.Error()+": "+text).WithOutcome(endpoint.NotSent)
		}
	}
	return &codec.Payload{MediaType: in.mediaType, Data: data}, nil
}

// lines gives a message for each line that is not blank.
func (in *input) lines() iter.Seq2[*codec.Payload, error] {
	from := in.from
	if in.taken {
		from = bytes.NewReader(in.read)
	}
	return func(yield func(*codec.Payload, error) bool) {
		for r := bufio.NewReader(from); ; {
			line, err := r.ReadBytes('\n')
			if line = bytes.TrimSpace(line); len(line) > 0 {
				if m, err := in.payload(line); !yield(m, err) || err != nil {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, &ioError{err})
				return
			}
		}
	}
}
