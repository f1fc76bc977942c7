// Command image makes iotdm's container image of programs that were built for
// Linux: nothing but the program, the certificates of public CAs and a folder
// for data, without a shell and without root.
//
//	image -version 1.2.3 -o FOLDER amd64=PROGRAM arm64=PROGRAM
//
// FOLDER gets image, an OCI layout with every platform that can be pushed to a
// registry, and for each platform a file that "docker load" and "podman load"
// take. The same programs, version and date give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// repository is where the image is published.
const repository = "ghcr.io/iotdm/iotdm"

// user owns /data and runs the program. A number, since Kubernetes asks for one
// where it must not be root, and since the image has no list of users.
const user = 65532

// config is what a container does unless it is told otherwise. A container is
// reached from outside, and so the hub listens on all of its addresses.
var config = v1.Config{
	User:       fmt.Sprintf("%d:%d", user, user),
	Entrypoint: []string{"/usr/bin/iotdm"},
	Cmd:        []string{"hub", "run"},
	Env: []string{
		"PATH=/usr/bin",
		"IOTDM_DATA=/data/hub",
		"IOTDM_DEVICE_STATE=/data/device",
		"IOTDM_HUB_MQTTS_ADDR=:8883",
		"IOTDM_HUB_AMQPS_ADDR=:5671",
		"IOTDM_HUB_HTTPS_ADDR=:443",
		"IOTDM_HUB_HEALTH_ADDR=:8080",
	},
	ExposedPorts: map[string]struct{}{"443/tcp": {}, "5671/tcp": {}, "8080/tcp": {}, "8883/tcp": {}},
	Volumes:      map[string]struct{}{"/data": {}},
	WorkingDir:   "/data",
	Healthcheck: &v1.HealthConfig{
		Test:        []string{"CMD", "/usr/bin/iotdm", "hub", "status"},
		Interval:    5 * time.Second,
		Timeout:     6 * time.Second,
		StartPeriod: 30 * time.Second,
		Retries:     3,
	},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	version := flag.String("version", "", "the `VERSION` in the image's tag")
	commit := flag.String("commit", "", "the `COMMIT` that the programs were built from")
	date := flag.Int64("date", 0, "the `SECONDS` since 1970 that all dates are")
	folder := flag.String("o", ".", "the `FOLDER` for what is made")
	flag.Parse()
	labels := map[string]string{
		"org.opencontainers.image.title":       "iotdm",
		"org.opencontainers.image.description": "manage devices through IoT Hub: a device, a service client and a hub",
		"org.opencontainers.image.source":      "https://github.com/iotdm/iotdm",
		"org.opencontainers.image.licenses":    "MIT",
		"org.opencontainers.image.version":     *version,
		"org.opencontainers.image.revision":    *commit,
	}
	if err := write(*folder, *version, time.Unix(*date, 0).UTC(), labels, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func write(folder, version string, date time.Time, labels map[string]string, programs []string) error {
	// Manifests are Docker's, since podman takes no health check from others.
	index := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	for _, program := range programs {
		arch, file, _ := strings.Cut(program, "=")
		image, err := build(arch, file, date, labels)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		tag, err := name.NewTag(repository + ":" + version)
		if err != nil {
			return err
		}
		if err := tarball.WriteToFile(filepath.Join(folder, fmt.Sprintf("iotdm_%s_image_linux_%s.tar", version, arch)), tag, image); err != nil {
			return err
		}
	}
	_, err := layout.Write(filepath.Join(folder, "image"), index)
	return err
}

func build(arch, program string, date time.Time, labels map[string]string) (v1.Image, error) {
	files, err := fileSystem(program, date)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: date}, CreatedBy: "iotdm's release"},
	})
	if err != nil {
		return nil, err
	}
	c, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	c.OS, c.Architecture, c.Created = "linux", arch, v1.Time{Time: date}
	c.Config = config
	c.Config.Labels = labels
	return mutate.ConfigFile(image, c)
}

// fileSystem is all that a container sees, as a tar file.
func fileSystem(program string, date time.Time) ([]byte, error) {
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var errs []error
	add := func(h tar.Header, content []byte) {
		h.ModTime, h.Size, h.Format = date, int64(len(content)), tar.FormatPAX
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(content)
		}
		errs = append(errs, err)
	}
	for _, dir := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/", "usr/", "usr/bin/"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o700, Uid: user, Gid: user}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, roots())
	add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/iotdm", Mode: 0o755}, text)
	return b.Bytes(), errors.Join(append(errs, w.Close())...)
}

// roots are the CAs that Mozilla trusts, in PEM form. Some it trusts within
// limits that a file of certificates cannot express: they are left out.
func roots() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return b.Bytes()
}
