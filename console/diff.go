package console

import (
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/twin"
)

// A treeRow is a property of a twin, or an object above some. Rows come in the order of the document.
type treeRow struct {
	Path    string // names joined by ".", below the section
	Name    string
	Level   int    // 1 at the root; more than maxLevel are shown as that
	Value   string // JSON; empty for an object that has members, which follow
	Updated time.Time
	By      string // who wrote it last; empty: not known
}

// maxLevel is how far rows are indented. Twins are at most ten levels deep.
const maxLevel = 10

// treeOf returns the rows of a section with its $metadata, which may have none. Text that is not a JSON object has no rows.
func treeOf(section []byte) []treeRow {
	var rows []treeRow
	addRows(&rows, section, gjson.GetBytes(section, "$metadata"), "", 1)
	return rows
}

func addRows(rows *[]treeRow, object []byte, metadata gjson.Result, above string, level int) {
	written := metadata.Map() // empty if it is no object
	for c := jsontext.Walk(object); c.Member(); {
		name := gjson.ParseBytes(c.Key()).String()
		if level == 1 && (name == "$metadata" || name == "$version") {
			continue
		}
		row := treeRow{Path: name, Name: name, Level: min(level, maxLevel)}
		if above != "" {
			row.Path = above + "." + name
		}
		row.Updated, _ = time.Parse(time.RFC3339Nano, written[name].Get(`\$lastUpdated`).String())
		value := c.Value()
		inner := value[0] == '{' && jsontext.More(value, 0)
		if !inner {
			row.Value = string(value)
		}
		*rows = append(*rows, row)
		if inner {
			addRows(rows, value, written[name], row.Path, level+1)
		}
	}
}

// A changeRow is a property that has changed, as people see it.
type changeRow struct {
	Path     string
	Old, New string // JSON; empty: it was not there, or is gone
}

// Kind is a word for what has become of it.
func (c changeRow) Kind() string {
	switch {
	case c.Old == "":
		return "added"
	case c.New == "":
		return "removed"
	}
	return "changed"
}

func changeRows(changes []twin.Change) []changeRow {
	rows := make([]changeRow, 0, len(changes))
	for _, c := range changes {
		rows = append(rows, changeRow{c.Path, string(c.Old), string(c.New)})
	}
	return rows
}

// A conflictRow is a property that somebody else has changed, too.
type conflictRow struct {
	Path                string
	Before, Mine, Their string // JSON; empty: it is not there
}

func conflictRows(conflicts []twin.Conflict) []conflictRow {
	rows := make([]conflictRow, 0, len(conflicts))
	for _, c := range conflicts {
		rows = append(rows, conflictRow{c.Path, string(c.Base), string(c.Mine), string(c.Theirs)})
	}
	return rows
}

// leaves are the paths of the properties that a patch writes or removes, those of objects as such left out.
func leaves(patch []byte, above string) []string {
	var paths []string
	for c := jsontext.Walk(patch); c.Member(); {
		path := gjson.ParseBytes(c.Key()).String()
		if above == "" && (path == "$metadata" || path == "$version") {
			continue
		}
		if above != "" {
			path = above + "." + path
		}
		if value := c.Value(); value[0] == '{' && jsontext.More(value, 0) {
			paths = append(paths, leaves(value, path)...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

// isBelow reports whether a path is that of something inside of another.
func isBelow(path, above string) bool {
	return strings.HasPrefix(path, above+".")
}

// authors says who wrote the rows: by what is told of each path, and of objects by that of their newest property.
func authors(rows []treeRow, by map[string]string) {
	for i := range slices.Backward(rows) {
		row := &rows[i]
		if row.By = by[row.Path]; row.Value != "" {
			continue
		}
		for _, inner := range rows[i+1:] {
			if !isBelow(inner.Path, row.Path) {
				break
			}
			if inner.Updated.Equal(row.Updated) && inner.By != "" {
				row.By = inner.By
				break
			}
		}
	}
}
