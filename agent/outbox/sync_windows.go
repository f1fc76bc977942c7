package outbox

// syncFolder does nothing: Windows has no such thing, and needs none.
func syncFolder(string) error { return nil }
