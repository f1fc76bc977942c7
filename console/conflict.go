package console

import (
	"context"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// A conflict is a path that two configurations set.
type conflict struct {
	Other hubrest.Configuration
	Path  string
	Wins  bool // this one has the last word, not the other
	Twins int  // that both have; counted if somebody asks
}

// conflictsOf returns where others of the same kind set what c sets. Of two the one with the higher priority counts, and of
// these the newer one.
func conflictsOf(c hubrest.Configuration, all []hubrest.Configuration) []conflict {
	var list []conflict
	for _, other := range all {
		if other.ID == c.ID || configurationKind(other) != configurationKind(c) || other.TargetCondition == "" || c.TargetCondition == "" {
			continue
		}
		wins := c.Priority > other.Priority || c.Priority == other.Priority && c.Created.After(other.Created.Time)
		others := pathsOf(other)
		for _, path := range pathsOf(c) {
			if slices.ContainsFunc(others, func(p string) bool { return overlap(path, p) }) {
				list = append(list, conflict{Other: other, Path: path, Wins: wins})
			}
		}
	}
	return list
}

// pathsOf returns the paths that a configuration sets, with the module in front.
func pathsOf(c hubrest.Configuration) []string {
	var paths []string
	for path := range c.Content.Device {
		paths = append(paths, path)
	}
	for path := range c.Content.Module {
		paths = append(paths, path)
	}
	for module, content := range c.Content.Modules {
		for path := range content {
			paths = append(paths, module+": "+path)
		}
	}
	slices.Sort(paths)
	return paths
}

// overlap reports whether two paths are the same, or one leads through the other.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// countConflicts fills in how many twins both configurations have.
func (c *Console) countConflicts(ctx context.Context, one hubrest.Configuration, list []conflict) error {
	counted := map[string]int{}
	for i := range list {
		other := list[i].Other
		n, known := counted[other.ID]
		if !known {
			var err error
			if n, err = c.countTwins(ctx, one, both(one.TargetCondition, other.TargetCondition)); err != nil {
				return err
			}
			counted[other.ID] = n
		}
		list[i].Twins = n
	}
	return nil
}

// both is the condition of the twins that meet two: both of devices, or both of modules, which begin with FROM.
func both(a, b string) string {
	from, a, of := cutFrom(a)
	_, b, ofOther := cutFrom(b)
	if !of || !ofOther {
		from = ""
	}
	switch {
	case strings.TrimSpace(a) == "*" || a == "":
		a = b
	case strings.TrimSpace(b) != "*" && b != "":
		a = "(" + a + ") AND (" + b + ")"
	}
	switch {
	case from != "" && a != "":
		return from + " WHERE " + a
	case from != "":
		return from
	}
	return a
}

// cutFrom cuts "FROM devices.modules WHERE condition" into what stands before and behind WHERE.
func cutFrom(text string) (from, where string, found bool) {
	words := strings.Fields(text)
	if len(words) < 2 || !strings.EqualFold(words[0], "FROM") {
		return "", text, false
	}
	from = words[0] + " " + words[1]
	if len(words) < 4 {
		return from, "", true
	}
	upper := strings.ToUpper(text)
	return from, strings.TrimSpace(text[strings.Index(upper, "WHERE")+len("WHERE"):]), true
}
