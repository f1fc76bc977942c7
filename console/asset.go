package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// assets are the stylesheet and the like, by the name in their address, which has a hash of their content: browsers
// keep them for good.
type assets map[string]asset

type asset struct {
	kind           string
	plain, zipped  []byte
	name, original string
}

func newAssets(dir fs.FS) (assets, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	all := assets{}
	for _, e := range entries {
		b, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			return nil, err
		}
		var zipped bytes.Buffer
		z, _ := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
		z.Write(b)
		z.Close()
		sum := sha256.Sum256(b)
		ext := path.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		all[name] = asset{kind: mime.TypeByExtension(ext), plain: b, zipped: zipped.Bytes(), name: name, original: e.Name()}
	}
	return all, nil
}

// url is the address of a file of static.
func (a assets) url(original string) string {
	for _, one := range a {
		if one.original == original {
			return "/static/" + one.name
		}
	}
	return ""
}

// ServeHTTP answers with the file that the path names.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	one, ok := a[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", one.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		w.Write(one.zipped)
		return
	}
	w.Write(one.plain)
}
