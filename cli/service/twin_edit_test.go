package service

import (
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/twinedit"
	"github.com/iotdm/iotdm/twin"
)

// properties are a section of a twin, of one level.
type properties map[string]int

// document is p as a section.
func (p properties) document() json.RawMessage {
	doc, _ := json.Marshal(p)
	return doc
}

// edited is p with some properties set, changed or removed at random.
func (p properties) edited(random *rand.Rand) properties {
	p = maps.Clone(p)
	for range 1 + random.IntN(3) {
		name := string(rune('a' + random.IntN(6)))
		if p[name] = random.IntN(5); random.IntN(3) == 0 {
			delete(p, name)
		}
	}
	return p
}

// rebased is mine, as a change of base, made to theirs: where both have changed
// a property mine stands.
func rebased(base, mine, theirs properties) properties {
	now := maps.Clone(theirs)
	for _, names := range []properties{base, mine} {
		for name := range names {
			value, stays := mine[name]
			if before, was := base[name]; was == stays && before == value {
				continue // not mine
			}
			if now[name] = value; !stays {
				delete(now, name)
			}
		}
	}
	return now
}

// Whatever others write while a user edits a twin and saves conflicts as they
// are: what the user has changed is there in the end, and of all else what the
// others have written last.
func TestEditOfTwinLosesNoChange(t *testing.T) {
	h := hubtest.New(t)
	client, err := hubrest.New(hubrest.Options{ConnectionString: h.Policy("service"), Addr: h.HTTPSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	id := hub.ID{Device: "d1"}
	h.Device(id.Device)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	theirs := properties{}
	write := func(now properties) {
		patch, err := twin.MergePatch(theirs.document(), now.document())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.PatchTwin(id, hub.TwinChange{Desired: patch}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		theirs = now
	}
	for round := range 100 {
		write(theirs.edited(random))
		e := &twinEdit{Streams: output.Streams{Out: io.Discard, ErrOut: io.Discard}, client: client}
		e.o.on.device = id.Device
		if e.now, err = client.Twin(t.Context(), e.o.on.target()); err != nil {
			t.Fatal(err)
		}
		e.base = twinedit.Of(e.now)
		base := theirs
		mine := base.edited(random)
		text := e.base
		text.Desired = mine.document()
		for done := false; !done; {
			for range random.IntN(3) {
				write(theirs.edited(random))
			}
			mine, base = rebased(base, mine, theirs), theirs
			done, _, err = e.submit(t.Context(), &text)
			if err != nil {
				t.Fatal(err)
			}
		}
		now, err := client.Twin(t.Context(), e.o.on.target())
		if err != nil {
			t.Fatal(err)
		}
		got := properties{}
		if err := json.Unmarshal(twinedit.Of(now).Desired, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(mine, got); diff != "" {
			t.Fatalf("seed %d, round %d: desired properties (-want +got):\n%s", seed, round, diff)
		}
		theirs = got
	}
}
