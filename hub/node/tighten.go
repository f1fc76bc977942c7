package node

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// tighten takes from everybody but the owner what they could read of a data
// folder: an older umask, a copy or a mounted volume may have left it open. It
// returns a line about what it did, or could not do, if there was something.
//
// A folder whose mode this user may not change, such as a mounted volume, is
// used all the same: the files with secrets in it are the user's own.
func tighten(dir string) string {
	if runtime.GOOS == "windows" {
		return "" // has no such modes
	}
	var done, failed []string
	for _, name := range []string{".", storeFolder, eventFolder, lockFile, infoFile, policiesFile, caKeyFile, leafFile, rsaLeafFile} {
		file := filepath.Join(dir, name)
		info, err := os.Lstat(file)
		if err != nil || info.Mode().Perm()&0o077 == 0 {
			continue
		}
		switch info.Mode().Type() {
		case fs.ModeDir:
			err = os.Chmod(file, folderMode)
		case 0:
			err = os.Chmod(file, secretMode)
		default:
			continue // a link is somebody's own arrangement
		}
		if err != nil {
			failed = append(failed, file)
		} else {
			done = append(done, file)
		}
	}
	switch {
	case len(failed) > 0:
		return "others may read " + strings.Join(failed, ", ") + ", and this user may not change that; take the right from them"
	case len(done) > 0:
		return "others could read " + strings.Join(done, ", ") + "; only this user can now"
	}
	return ""
}
