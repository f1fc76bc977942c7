package e2e

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestRegisterModel sees that the order of a history is found, and that none is where there is none.
func TestRegisterModel(t *testing.T) {
	const first = "AAAAAAAAAAE="
	second := nextETag(first)
	wrote := registerOutput{known: true, registerState: registerState{second, 1}}
	write := porcupine.Operation{ClientId: 0, Input: registerInput{n: 1, ifMatch: first}, Call: 0, Output: wrote, Return: 10}
	read := func(call, ret int64, s registerState) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: registerInput{}, Call: call, Output: registerOutput{known: true, registerState: s}, Return: ret}
	}
	old, now := registerState{first, 0}, registerState{second, 1}
	for name, tt := range map[string]struct {
		history []porcupine.Operation
		want    bool
	}{
		"a read beside the write sees either":            {[]porcupine.Operation{write, read(5, 20, old)}, true},
		"a read behind the write sees it":                {[]porcupine.Operation{write, read(11, 20, now)}, true},
		"a read behind the write that does not is stale": {[]porcupine.Operation{write, read(11, 20, old)}, false},
		"two writes with one etag":                       {[]porcupine.Operation{write, {ClientId: 1, Input: registerInput{n: 2, ifMatch: first}, Call: 1, Output: registerOutput{known: true, registerState: registerState{second, 2}}, Return: 9}}, false},
		"one that nobody knows of comes late":            {[]porcupine.Operation{{ClientId: 0, Input: registerInput{n: 1}, Call: 0, Output: registerOutput{}, Return: 1 << 60}, read(11, 20, old), read(21, 30, now)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := registerWriter{first: old, history: tt.history}
			if got := porcupine.CheckOperations(w.model(), w.history); got != tt.want {
				t.Errorf("an order is found: %v, want %v", got, tt.want)
			}
		})
	}
}
