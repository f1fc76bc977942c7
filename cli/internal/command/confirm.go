package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// A Confirmation stands before what touches many devices, or cannot be taken
// back: a person is asked, a script has to say --yes.
type Confirmation struct{ yes bool }

// Flag returns the flag --yes.
func (c *Confirmation) Flag() urfave.Flag {
	return &urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Destination: &c.yes, DisableDefaultText: true, Usage: "do not ask"}
}

// Given reports whether --yes was, so that Ask does not say what is about to be done.
func (c *Confirmation) Given() bool { return c.yes }

// Ask returns nil if what may be done, such as "Reboot 3 devices". It asks on a
// terminal, where anything but yes is no. Elsewhere nobody would see the
// question, and to leave --yes out is wrong usage.
func (c *Confirmation) Ask(ctx context.Context, s output.Streams, what string) error {
	if c.yes {
		return nil
	}
	if !output.IsTerminal(s.In) || !output.IsTerminal(s.ErrOut) {
		return fail.Usagef("%s? There is no terminal to answer that on; say --yes if it is what you want", what)
	}
	fmt.Fprintf(s.ErrOut, "%s? [y/N] ", what)
	answer := make(chan string, 1)
	go func() { // which a read from a terminal may outlive: nothing ends that but a key
		text, _ := bufio.NewReader(s.In).ReadString('\n') // no answer is no
		answer <- text
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.ErrOut)
		return fail.Errorf(fail.Interrupted, "interrupted; nothing was done")
	case text := <-answer:
		if !strings.HasSuffix(text, "\n") {
			fmt.Fprintln(s.ErrOut)
		}
		if a := strings.ToLower(strings.TrimSpace(text)); a != "y" && a != "yes" {
			return fail.Errorf(fail.Failed, "nothing was done")
		}
		return nil
	}
}
