package console

// A navItem is an entry of the navigation.
type navItem struct {
	Path, Name string
	Current    bool
	Key        string // which leads there after "g"
}

// nav are the entries, that of the section being the current one.
func (c *Console) nav(section string) []navItem {
	items := []navItem{
		{Path: "/", Name: "Overview", Key: "o"},
		{Path: "/devices", Name: "Devices", Key: "d"},
		{Path: "/events", Name: "Events", Key: "e"},
		{Path: "/queries", Name: "Queries", Key: "q"},
		{Path: "/jobs", Name: "Jobs", Key: "j"},
		{Path: "/configurations", Name: "Configurations", Key: "c"},
	}
	if c.opt.Provisioning != nil {
		items = append(items, navItem{Path: "/enrollments", Name: "Enrollments", Key: "n"})
	}
	items = append(items, navItem{Path: "/settings", Name: "Settings", Key: "s"})
	for i := range items {
		items[i].Current = items[i].Name == section
	}
	return items
}
