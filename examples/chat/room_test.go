package main

import (
	"errors"
	"iter"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Who does not listen is thrown out, and holds nobody up.
func TestRoomThrowsOut(t *testing.T) {
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("room.chat", endpoint.NewBidiStream(new(room).chat)))
	chat := endpoint.BidiStreamCaller[*Line, *Line](m, "room.chat")
	ada := enter(t.Context(), chat, "ada")
	assert.Equal(t, <-ada.heard, "* ada is here")

	here, listens, stays := make(chan bool), make(chan bool), make(chan bool)
	defer close(stays)
	silent := iter.Seq2[*Line, error](func(func(*Line, error) bool) { <-stays })
	bob := make(chan error, 1)
	go func() {
		var last error
		for _, err := range chat(endpoint.WithHeader(t.Context(), "Name", "bob"), silent) {
			if last = err; err == nil {
				here <- true
				<-listens
			}
		}
		bob <- last
	}()
	assert.Equal(t, <-ada.heard, "* bob is here")
	assert.True(t, <-here)
	go func() {
		for range here { // what he has missed
		}
	}()
	for range patience + 2 {
		ada.say <- "hello?"
		assert.Equal(t, <-ada.heard, "ada: hello?")
	}
	close(listens)
	err := <-bob
	close(here)
	assert.ErrorIs(t, err, endpoint.ResourceExhausted)
	assert.Equal(t, <-ada.heard, "* bob is gone")
	close(ada.say)
	_, open := <-ada.heard
	assert.True(t, !open)

	_, err = first(chat(t.Context(), silent))
	assert.ErrorIs(t, err, endpoint.InvalidArgument, "without a name")
	assert.True(t, !errors.Is(err, endpoint.Internal))
}

func first(lines iter.Seq2[*Line, error]) (*Line, error) {
	for line, err := range lines {
		return line, err
	}
	return nil, nil
}
