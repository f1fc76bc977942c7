package service

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// ifMissingFlag lets a script that creates something run twice.
func ifMissingFlag(ifMissing *bool) urfave.Flag {
	return &urfave.BoolFlag{Name: "if-missing", Destination: ifMissing, DisableDefaultText: true, Usage: "what exists already is kept as it is, and is no error"}
}

// ifExistsFlag lets a script that deletes something run twice.
func ifExistsFlag(ifExists *bool) urfave.Flag {
	return &urfave.BoolFlag{Name: "if-exists", Destination: ifExists, DisableDefaultText: true, Usage: "what does not exist is no error"}
}

// keepExisting returns what is there if it could not be created for that reason,
// and says in what it is not as asked, with an advice.
func keepExisting[T any](s output.Streams, noun, advice string, asked, created T, err error, get func() (T, error)) (T, error) {
	if !errors.Is(err, hubrest.ErrAlreadyExists) {
		return created, err
	}
	is, err := get()
	if err != nil {
		return is, err
	}
	if other := unlikeAsked(asked, is); len(other) > 0 {
		s.Note("%s exists already and is kept, though not as asked: %s; %s", sentence(noun), strings.Join(other, ", "), advice)
	} else {
		s.Note("%s exists already, unchanged", sentence(noun))
	}
	return is, nil
}

// passMissing is no error if err says that what was to be deleted is not there.
func passMissing(s output.Streams, ifExists bool, noun string, err error) error {
	if err == nil {
		s.Note("Deleted %s", noun)
	}
	if ifExists && errors.Is(err, hubrest.ErrNotFound) {
		s.Note("%s does not exist, nothing to delete", sentence(noun))
		return nil
	}
	return err
}

// sentence begins with what a noun is about.
func sentence(noun string) string { return strings.ToUpper(noun[:1]) + noun[1:] }

// unlikeAsked are the fields that asked has and is has otherwise, by their JSON
// names and without their values, which may be keys. Fields that are empty in
// asked were not asked for.
func unlikeAsked(asked, is any) []string {
	var found []string
	var compare func(path string, asked, is any)
	compare = func(path string, asked, is any) {
		if fields, ok := asked.(map[string]any); ok {
			others, _ := is.(map[string]any)
			for name, value := range fields {
				compare(strings.TrimPrefix(path+"."+name, "."), value, others[name])
			}
			return
		}
		if asked != nil && !reflect.ValueOf(asked).IsZero() && !reflect.DeepEqual(asked, is) {
			found = append(found, path)
		}
	}
	compare("", document(asked), document(is))
	slices.Sort(found)
	return found
}

// document returns v as JSON shows it.
func document(v any) (doc any) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		panic(err) // only our own types come here
	}
	return doc
}
