package rest

// Routes lists the method and path of every route, so that tests can say what
// each needs and find that none was forgotten.
func Routes() (list []string) {
	for _, r := range routes {
		list = append(list, r.method+" /"+r.path)
	}
	return list
}
