package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// Whatever changes identities and twins, and in whatever order, all that follows
// from it agrees in the end: who reads the events knows the registry and the
// twins, a connected device its desired properties, a query finds what is there,
// and the configurations have nothing left to do.
func TestAllThatFollowsFromChangesAgrees(t *testing.T) {
	for name, mix := range map[string]lawMix{
		"by hand":                    {},
		"by hand, with replacements": {replace: true},
		"by configurations too":      {configure: true},
		"by all":                     {replace: true, configure: true},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s, %d", name, seed), func(t *testing.T) {
				t.Parallel()
				newLaw(t, mix, seed).run()
			})
		}
	}
}

// A lawMix says which changes there are besides the others.
type lawMix struct{ replace, configure bool }

const (
	lawWriters = 3
	lawChanges = 250 // of each writer
)

// A law is a hub that several writers change at random while others follow.
type law struct {
	t    *testing.T
	node *node.Node
	mix  lawMix
	seed uint64

	watching sync.WaitGroup

	mu       sync.Mutex // guards what follows
	sessions []*lawSession
}

// A lawSession is a device that is connected for a while.
type lawSession struct {
	link  *memoryLink
	began map[string]any // the desired properties when it had connected; nil if it was deleted by then
}

func newLaw(t *testing.T, mix lawMix, seed uint64) *law {
	return &law{t: t, node: wiretest.NewNode(t, node.Options{}), mix: mix, seed: seed}
}

func (l *law) run() {
	const last = "the-last-one" // whose event comes behind all others
	events := make(chan []hub.Event, 1)
	ctx, cancel := context.WithTimeout(l.t.Context(), wiretest.Patience*3)
	defer cancel()
	go func() {
		var list []hub.Event
		defer func() { events <- list }()
		for e, err := range l.node.Events(ctx, hub.EventQuery{Follow: true}) {
			if err != nil {
				l.t.Errorf("Events: %v", err)
				return
			}
			if e.From.Device == last {
				return
			}
			e.Body = slices.Clone(e.Body)
			list = append(list, e)
		}
	}()

	var writers sync.WaitGroup
	for w := range uint64(lawWriters) {
		writers.Go(func() {
			r := lawRand{rand.New(rand.NewPCG(l.seed, w))}
			for range lawChanges {
				l.change(r)
			}
		})
	}
	writers.Wait()
	// What a device announces is for many the last change.
	r := lawRand{rand.New(rand.NewPCG(l.seed, lawWriters))}
	for id := range l.registry() {
		if err := l.connect(id, one(r, lawModels)); err != nil && !errors.Is(err, hub.ErrUnauthorizedAccess) {
			l.t.Errorf("connect %s: %v", id, err)
		}
	}
	l.wait(ctx)
	l.checkSessions()
	l.checkNothingLeft(ctx)
	wiretest.Create(l.t, l.node, hub.ID{Device: last}, hub.IdentitySpec{})
	heard := <-events
	if err := l.node.DeleteIdentity(hub.ID{Device: last}, hub.Match{}); err != nil {
		l.t.Fatal(err)
	}
	l.checkEvents(heard)
	l.checkQueries()
}

func (l *law) wait(ctx context.Context) {
	l.t.Helper()
	if err := l.node.Configurations.Wait(ctx); err != nil {
		l.t.Fatalf("waiting for the configurations: %v", err)
	}
}

// lawIDs are those that are changed. IoT Edge and deployments add others.
var lawIDs = []hub.ID{
	{Device: "a"}, {Device: "b"}, {Device: "c"},
	{Device: "a", Module: "m1"}, {Device: "a", Module: "m2"}, {Device: "b", Module: "m1"}, {Device: "c", Module: "m1"},
	{Device: "a", Module: hub.EdgeAgent}, {Device: "c", Module: "$edgeHub"}, {Device: "c", Module: "deployed"},
}

var lawModels = []string{"", "dtmi:a;1", "dtmi:b;1"}

var lawModes = []hub.ImportMode{
	"", hub.ImportCreateOrUpdate, hub.ImportCreate, hub.ImportUpdate, hub.ImportUpdateIfMatchETag,
	hub.ImportCreateOrUpdateIfMatchETag, hub.ImportDelete, hub.ImportDeleteIfMatchETag,
	hub.ImportUpdateTwin, hub.ImportUpdateTwinIfMatchETag,
}

func (l *law) configurations() []configurations.Spec {
	modules := configurations.Spec{ID: "modules", TargetCondition: "from devices.modules where tags.site = 'n'", Priority: 1}
	modules.Content.Module = map[string]json.RawMessage{"properties.desired.z": json.RawMessage("5")}
	return []configurations.Spec{
		wiretest.DeviceConfiguration("north", "tags.site = 'n'", 1, map[string]string{"x": "10", "set.a": "1"}),
		wiretest.DeviceConfiguration("model", "modelId = 'dtmi:a;1'", 2, map[string]string{"x": "20", "set.b": "{\"c\":1.0}"}),
		modules,
		wiretest.EdgeDeployment(l.t, "edge", "*", 1, wiretest.BaseDeployment("m1", "deployed")),
		wiretest.EdgeDeployment(l.t, "layer", "tags.site = 'n'", 2, `{"$edgeAgent":{"properties.desired.modules.more":{"type":"docker"}},"more":{"properties.desired":{"y":1}}}`),
	}
}

// change makes one change. The hub may refuse it.
func (l *law) change(r lawRand) {
	id := one(r, lawIDs)
	var err error
	switch what := r.IntN(100); {
	case what < 10:
		_, err = l.node.PutIdentity(id, r.spec(id), hub.Match{})
	case what < 18:
		_, err = l.node.PutIdentity(id, r.spec(id), hub.Match{Any: true})
	case what < 23:
		err = l.node.DeleteIdentity(id, hub.Match{})
	case what < 25:
		_, err = l.node.RegenerateKeys(id, r.IntN(2) == 0, true)
	case what < 40:
		_, err = l.node.Bulk(l.entries(r))
	case what < 60:
		_, err = l.node.PatchTwin(id, r.twinChange(), hub.Match{ETag: one(r, []string{"", "", "", "AAAAAAAAAAI="})})
	case what < 65 && l.mix.replace:
		_, err = l.node.ReplaceTwin(id, r.twinChange(), hub.Match{})
	case what < 80:
		_, err = l.node.PatchReported(id, []byte(r.object(2)), hub.AnyVersion)
	case what < 88:
		err = l.connect(id, one(r, lawModels))
	case what < 92:
		l.disconnect(r)
	case l.mix.configure && what < 98:
		spec := one(r, l.configurations())
		_, err = l.node.Configurations.Put(spec, hub.Match{Any: r.IntN(2) == 0})
	case l.mix.configure:
		err = l.node.Configurations.Delete(one(r, l.configurations()).ID, hub.Match{})
	}
	if refused := (*hub.Error)(nil); err != nil && !errors.As(err, &refused) {
		l.t.Errorf("a change of %s: %v", id, err)
	}
}

func (l *law) entries(r lawRand) (list []hub.BulkEntry) {
	for _, n := range r.Perm(len(lawIDs))[:1+r.IntN(4)] {
		id := lawIDs[n]
		list = append(list, hub.BulkEntry{
			ID: id, Mode: one(r, lawModes), ETag: one(r, []string{"", "*", "MQ=="}), TwinETag: one(r, []string{"", "*", "AAAAAAAAAAE="}),
			Spec: r.spec(id), Twin: r.twinChange(), Reported: json.RawMessage(r.object(2)),
		})
	}
	return list
}

func (l *law) connect(id hub.ID, model string) error {
	peer, err := authenticated(l.node, id, model)
	if err != nil {
		return err
	}
	link := newMemoryLink(l.node, peer)
	if err := l.node.Attach(link); err != nil {
		return err
	}
	l.watching.Go(func() {
		<-link.gone
		l.node.Detach(link, "closed", errGone)
	})
	s := &lawSession{link: link}
	// One that has ended by then may have been told of another twin than this: of
	// an identity that was deleted, and made again.
	if doc, err := l.node.DeviceTwin(id); err == nil && link.why() == nil {
		s.began, _ = parsed(l.t, doc)["desired"].(map[string]any)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, s)
	return nil
}

func (l *law) disconnect(r lawRand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sessions) > 0 {
		one(r, l.sessions).link.End(errors.New("it leaves"))
	}
}

// checkSessions checks what the devices were told, and ends the connections.
func (l *law) checkSessions() {
	l.t.Helper()
	for _, s := range l.sessions {
		id := s.link.peer.ID
		connected := s.link.why() == nil && l.node.Link(id) == hub.Link(s.link)
		s.link.End(errors.New("it is over"))
		if s.began == nil {
			continue
		}
		at := int64(s.began["$version"].(float64))
		for _, n := range s.link.notices() {
			if n.Version <= at { // it was in the twin that the device got
				continue
			}
			if n.Version != at+1 {
				l.t.Errorf("%s was told of version %d after %d", id, n.Version, at)
			}
			at = n.Version
			patch := parsed(l.t, []byte(n.Body))
			s.began["$version"] = patch["$version"]
			delete(patch, "$version")
			merge(s.began, patch)
		}
		if !connected {
			continue
		}
		doc, err := l.node.DeviceTwin(id)
		if err != nil {
			l.t.Errorf("twin of %s, which is connected: %v", id, err)
			continue
		}
		want := parsed(l.t, doc)["desired"].(map[string]any)
		if l.mix.replace { // what was there before a replacement is still in began
			want, s.began = map[string]any{"$version": want["$version"]}, map[string]any{"$version": s.began["$version"]}
		}
		if diff := cmp.Diff(want, s.began); diff != "" {
			l.t.Errorf("%s has been told of other desired properties (-want +got):\n%s", id, diff)
		}
	}
	l.watching.Wait()
}

// checkNothingLeft has the configurations look at every twin once more.
func (l *law) checkNothingLeft(ctx context.Context) {
	l.t.Helper()
	before := l.documents()
	for id := range before {
		if _, err := l.node.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage("{}")}, hub.Match{}); err != nil {
			l.t.Errorf("touch %s: %v", id, err)
		}
	}
	l.wait(ctx)
	after := l.documents()
	for id, doc := range before {
		doc["version"] = doc["version"].(float64) + 1
		for _, doc := range []map[string]any{doc, after[id]} {
			delete(doc, "etag")
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		l.t.Errorf("the configurations had something left to do (-before +after):\n%s", diff)
	}
}

// documents returns the twins of all identities.
func (l *law) documents() map[hub.ID]map[string]any {
	l.t.Helper()
	all := make(map[hub.ID]map[string]any)
	for id := range l.registry() {
		v, err := l.node.Twin(id)
		if err != nil {
			l.t.Fatal(err)
		}
		doc, err := v.MarshalJSON()
		if err != nil {
			l.t.Fatal(err)
		}
		all[id] = parsed(l.t, doc)
	}
	return all
}

func (l *law) registry() map[hub.ID]bool {
	l.t.Helper()
	all := make(map[hub.ID]bool)
	for i, err := range l.node.Devices() {
		if err != nil {
			l.t.Fatal(err)
		}
		all[i.ID] = true
		modules, err := l.node.Modules(i.Device)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, m := range modules {
			all[m.ID] = true
		}
	}
	return all
}

// A toldTwin is a twin as the events tell of it.
type toldTwin struct {
	version                 float64
	tags, desired, reported map[string]any
}

// newToldTwin reads the body of an event, or a document, with a whole twin.
func newToldTwin(doc map[string]any) toldTwin {
	properties := doc["properties"].(map[string]any)
	tags, _ := doc["tags"].(map[string]any)
	if tags == nil {
		tags = map[string]any{}
	}
	return toldTwin{doc["version"].(float64), tags, properties["desired"].(map[string]any), properties["reported"].(map[string]any)}
}

// withoutWriters leaves out which configuration set what: events do not tell.
func withoutWriters(metadata any) {
	if m, ok := metadata.(map[string]any); ok {
		delete(m, "$lastUpdatedBy")
		delete(m, "$lastUpdatedByDigest")
		for _, below := range m {
			withoutWriters(below)
		}
	}
}

// compare returns how a twin differs from what the events told of it. What
// configurations show of themselves in a twin counts as a write of it that has
// no event.
func (l *law) compare(told, is toldTwin) string {
	if l.mix.configure && told.version < is.version {
		told.version = is.version
	}
	withoutWriters(told.desired["$metadata"])
	withoutWriters(is.desired["$metadata"])
	return cmp.Diff(is, told, cmp.AllowUnexported(toldTwin{}))
}

// checkEvents checks that whoever reads the events knows the registry and the
// twins.
func (l *law) checkEvents(events []hub.Event) {
	l.t.Helper()
	told := make(map[hub.ID]toldTwin)
	for _, e := range events {
		body := parsed(l.t, e.Body)
		have, known := told[e.From]
		switch op := operation(e); op {
		case "createDeviceIdentity":
			if known {
				l.t.Errorf("%s is created while it exists", e.From)
			}
			if _, ok := told[hub.ID{Device: e.From.Device}]; e.From.Module != "" && !ok {
				l.t.Errorf("%s is created without its device", e.From)
			}
			told[e.From] = newToldTwin(body)
		case "deleteDeviceIdentity":
			if !known {
				l.t.Errorf("%s is deleted and was not created", e.From)
				continue
			}
			if diff := l.compare(have, newToldTwin(body)); diff != "" {
				l.t.Errorf("%s is deleted with another twin (-event +told before):\n%s", e.From, diff)
			}
			delete(told, e.From)
			for id := range told {
				if e.From.Module == "" && id.Device == e.From.Device {
					l.t.Errorf("%s is deleted before %s", e.From, id)
				}
			}
		case "updateTwin", "replaceTwin":
			if !known {
				l.t.Errorf("%s of %s, which does not exist", op, e.From)
				continue
			}
			before := have.version
			if op == "replaceTwin" {
				have = newToldTwin(body)
			} else {
				have.update(l.t, body)
			}
			if step := have.version - before; step != 1 && (!l.mix.configure || step < 1) {
				l.t.Errorf("%s of %s leads from version %v to %v", op, e.From, before, have.version)
			}
			told[e.From] = have
		case "deviceConnected", "deviceDisconnected":
		default:
			l.t.Errorf("%s of %s", op, e.From)
		}
	}
	docs := l.documents()
	if diff := cmp.Diff(slices.SortedFunc(maps.Keys(docs), byName), slices.SortedFunc(maps.Keys(told), byName)); diff != "" {
		l.t.Errorf("identities (-registry +events):\n%s", diff)
	}
	for id, doc := range docs {
		if have, ok := told[id]; ok {
			if diff := l.compare(have, newToldTwin(doc)); diff != "" {
				l.t.Errorf("twin of %s (-registry +events):\n%s", id, diff)
			}
		}
	}
}

func byName(a, b hub.ID) int { return strings.Compare(a.String(), b.String()) }

// update merges the body of an event of a patch.
func (told *toldTwin) update(t *testing.T, body map[string]any) {
	told.version = body["version"].(float64)
	if tags, ok := body["tags"].(map[string]any); ok {
		merge(told.tags, tags)
	}
	properties, _ := body["properties"].(map[string]any)
	for name, section := range map[string]map[string]any{"desired": told.desired, "reported": told.reported} {
		patch, ok := properties[name].(map[string]any)
		if !ok {
			continue
		}
		if section["$version"].(float64)+1 != patch["$version"] {
			t.Errorf("%s properties go from version %v to %v", name, section["$version"], patch["$version"])
		}
		section["$version"] = patch["$version"]
		metadata := patch["$metadata"].(map[string]any)
		delete(patch, "$version")
		delete(patch, "$metadata")
		mergeWith(section, section["$metadata"].(map[string]any), patch, metadata)
	}
}

// merge merges a patch into a document.
func merge(doc, patch map[string]any) { mergeWith(doc, map[string]any{}, patch, map[string]any{}) }

// mergeWith merges a patch with its metadata into a document with that.
func mergeWith(doc, docMeta, patch, patchMeta map[string]any) {
	for name, stamp := range patchMeta {
		if strings.HasPrefix(name, "$") {
			docMeta[name] = stamp
		}
	}
	for name, value := range patch {
		if value == nil {
			delete(doc, name)
			delete(docMeta, name)
			continue
		}
		below, ok := value.(map[string]any)
		belowMeta, _ := patchMeta[name].(map[string]any)
		if !ok {
			doc[name], docMeta[name] = value, belowMeta
			continue
		}
		into, ok := doc[name].(map[string]any)
		intoMeta, _ := docMeta[name].(map[string]any)
		if !ok {
			into, intoMeta = map[string]any{}, map[string]any{}
		}
		if intoMeta == nil {
			intoMeta = map[string]any{}
		}
		mergeWith(into, intoMeta, below, belowMeta)
		doc[name], docMeta[name] = into, intoMeta
	}
}

// checkQueries checks that queries find the twins as they are, also those that
// go by when a twin was written.
func (l *law) checkQueries() {
	l.t.Helper()
	docs := l.documents()
	const recent = "2020-01-01T00:00:00Z"
	for _, text := range []string{
		"SELECT * FROM devices", "SELECT * FROM devices.modules",
		"SELECT * FROM devices WHERE properties.desired.$metadata.$lastUpdated > '" + recent + "'",
		"SELECT * FROM devices.modules WHERE properties.desired.$metadata.$lastUpdated > '" + recent + "'",
	} {
		want := make(map[hub.ID]map[string]any)
		for id, doc := range docs {
			if strings.Contains(text, "modules") != (id.Module != "") {
				continue
			}
			desired := newToldTwin(doc).desired["$metadata"].(map[string]any)
			if !strings.Contains(text, "WHERE") || desired["$lastUpdated"].(string) > recent {
				want[id] = doc
			}
		}
		var rows []map[string]any
		if err := json.Unmarshal(ask(l.t, l.node, text, 1000, "").Body, &rows); err != nil {
			l.t.Fatal(err)
		}
		got := make(map[hub.ID]map[string]any)
		for _, row := range rows {
			module, _ := row["moduleId"].(string)
			got[hub.ID{Device: row["deviceId"].(string), Module: module}] = row
		}
		if diff := cmp.Diff(want, got); diff != "" {
			l.t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func parsed(t *testing.T, doc []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return m
}

// A lawRand makes up what is written.
type lawRand struct{ *rand.Rand }

func one[T any](r lawRand, list []T) T { return list[r.IntN(len(list))] }

func (r lawRand) spec(id hub.ID) (spec hub.IdentitySpec) {
	if r.IntN(6) == 0 {
		spec.Status = hub.StatusDisabled
	}
	spec.IoTEdge = id.Module == "" && (id.Device == "c" || r.IntN(4) == 0)
	return spec
}

func (r lawRand) twinChange() (c hub.TwinChange) {
	switch r.IntN(4) {
	case 0:
		c.Tags = json.RawMessage(r.object(1))
	case 1:
		c.Tags = json.RawMessage(one(r, []string{`{"site":"n"}`, `{"site":"s"}`, `{"site":null}`}))
		c.Desired = json.RawMessage(r.object(2))
	default:
		c.Desired = json.RawMessage(r.object(2))
	}
	return c
}

// object returns a patch, whose objects lie in each other to a depth.
func (r lawRand) object(depth int) string {
	var members []string
	for _, name := range []string{"x", "y", "set"} {
		value := one(r, []string{"", "1", "2.50", `"text"`, "null", "true", "{}", "{}"})
		if value == "{}" && depth > 0 {
			value = r.object(depth - 1)
		}
		if value != "" {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}
