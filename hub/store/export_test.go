package store

// OpenFS is Open on another file system.
var OpenFS = open

// Flush has the engine write what it holds in memory to a file of its own.
func Flush(db *DB) error { return db.engine.Flush() }
