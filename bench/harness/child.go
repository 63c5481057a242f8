package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// child is a process of ours in a role.
type child struct {
	name    string
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
	said    bytes.Buffer // on its standard error
}

func startChild(role roleName, system, address string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: string(role) + " of " + system}
	c.cmd = exec.Command(self, roleArgument, string(role), system, address) //nolint:gosec,noctx // this very program; it ends when its input does
	c.cmd.Stderr = &c.said
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.orders, c.answers = json.NewEncoder(c.in), json.NewDecoder(out)
	var h hello
	if err := c.answers.Decode(&h); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), c.stop())
	}
	if h.Error != "" {
		return nil, errors.Join(fmt.Errorf("%s: %s", c.name, h.Error), c.stop())
	}
	c.address = h.Address
	return c, nil
}

func (c *child) ask(o order) (*answer, error) {
	if err := c.orders.Encode(o); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	var a answer
	if err := c.answers.Decode(&a); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err) // stop says what it complained of
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", c.name, a.Error)
	}
	return &a, nil
}

// usage is what the process used so far, nothing where there is none.
func (c *child) usage() (Usage, error) {
	if c == nil {
		return Usage{}, nil
	}
	a, err := c.ask(order{})
	if err != nil {
		return Usage{}, err
	}
	return a.Usage, nil
}

// stop ends the process by the end of its input, and returns what it complained of.
func (c *child) stop() error {
	if c == nil {
		return nil
	}
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, c.said.Bytes())
	}
	return nil
}
