package node

// A Storage is where a hub keeps what it has. The zero value is memory.
type Storage struct {
	dir       string
	forgetful bool
}

// Folder keeps everything in the folder dir, which is made if it is missing.
func Folder(dir string) Storage { return Storage{dir: dir} }

// KeysFolder keeps keys, certificates, events and where the hub listens in the
// folder dir, and devices, twins and all other state in memory.
func KeysFolder(dir string) Storage { return Storage{dir: dir, forgetful: true} }

// state reports whether the folder holds the state.
func (s Storage) state() bool { return s.dir != "" && !s.forgetful }
