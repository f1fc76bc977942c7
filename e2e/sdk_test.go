package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The programs under sdk/ drive the hub with the official SDKs, as devices and
// back ends do. Each has a hub of its own, at an address of its own, because
// the SDKs have the ports built in.

func TestPythonDeviceSDK(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.3"), python, "-u", "sdk/python/device.py")
}

func TestPythonServiceSDK(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.4"), python, "-u", "sdk/python/service.py")
}

func TestNodeDeviceSDK(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.5"), node, "sdk/node/device.js", "mqtt")
}

func TestNodeServiceSDK(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.6"), node, "sdk/node/service.js")
}

func TestPythonJobs(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.51"), python, "-u", "sdk/python/jobs.py")
}

func TestPythonConfigurations(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.53"), python, "-u", "sdk/python/configurations.py")
}

func TestNodeJobs(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.52"), node, "sdk/node/jobs.js")
}

func TestNodeConfigurations(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.54"), node, "sdk/node/configurations.js")
}

func TestPythonQueries(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.41"), python, "-u", "sdk/python/query.py")
}

func TestNodeQueries(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.42"), node, "sdk/node/query.js")
}

func TestPythonC2D(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	runSDK(t, startHub(t, "127.0.0.64"), python, "-u", "sdk/python/c2d.py")
}

func TestPythonEventHubs(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub", "azure.eventhub", "aiohttp", "websocket")
	runSDK(t, startEventHub(t, "127.0.0.65"), python, "-u", "sdk/python/events.py")
}

func TestNodeDeviceSDKOverAMQP(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-amqp", "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.66"), node, "sdk/node/device.js", "amqp")
}

func TestNodeC2D(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "azure-iot-device-mqtt", "azure-iothub")
	runSDK(t, startHubOn443(t, "127.0.0.67"), node, "sdk/node/c2d.js")
}

func TestNodeEventHubs(t *testing.T) {
	t.Parallel()
	node := nodeWith(t, "@azure/event-hubs", "azure-iot-device-mqtt", "azure-iothub", "ws")
	runSDK(t, startEventHub(t, "127.0.0.68"), node, "sdk/node/events.js")
}

func TestJavaSDK(t *testing.T) {
	t.Parallel()
	runJava(t, startHubOn443(t, "127.0.0.7"), [][]string{{"ServiceChecks"}, {"DeviceChecks", "mqtt"}})
}

func TestJavaSDKOverAMQP(t *testing.T) {
	t.Parallel()
	runJava(t, startHubOn443(t, "127.0.0.69"), [][]string{{"MessagingChecks"}, {"DeviceChecks", "amqp"}})
}

func TestJavaEventHubs(t *testing.T) {
	t.Parallel()
	runJava(t, startEventHub(t, "127.0.0.70"), [][]string{{"EventChecks"}})
}

// runJava runs programs, each a class and its arguments.
func runJava(t *testing.T, h *hubProcess, programs [][]string) {
	t.Helper()
	classPath := compileJava(t)
	store := trustStore(t, h)
	for _, program := range programs {
		runSDK(t, h, "java", append([]string{"-Djavax.net.ssl.trustStore=" + store, "-Djavax.net.ssl.trustStorePassword=" + storePassword,
			"-Dfile.encoding=UTF-8", "-cp", classPath}, program...)...)
	}
}

// runSDK runs a program that ends by itself and says "all checks passed".
func runSDK(t *testing.T, h *hubProcess, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), h.env(t)...)
	cmd.Env = append(cmd.Env, certificate(t)...)
	cmd.Env = append(cmd.Env, "HUB_HOST="+h.address, "PYTHONDONTWRITEBYTECODE=1",
		"IOTHUB_CONNECTION_STRING="+h.connectionString(t, "--policy", "iothubowner"),
		"REGISTRY_CONNECTION_STRING="+h.connectionString(t, "--policy", "registryRead"),
		"EVENTHUB_CONNECTION_STRING="+h.eventHub(t), "CERTIFICATES="+h.certificates)
	if h.plain {
		cmd.Env = append(cmd.Env, "EMULATOR_CONNECTION_STRING="+h.eventHub(t, "--emulator"))
	}
	if h.https == "443" {
		cmd.Env = append(cmd.Env, "WEBSOCKETS=1")
	}
	start(t, cmd).await(t, "all checks passed")
}

// startHubOn443 is startHub for programs that cannot use another port for REST.
func startHubOn443(t *testing.T, address string, flags ...string) *hubProcess {
	t.Helper()
	if !canBind(net.JoinHostPort(address, "443")) {
		skip(t, "port 443 of "+address+" cannot be bound, and the SDKs for Node and Java know no other: run as root, or setcap cap_net_bind_service")
	}
	return startHubOn(t, address, "443", flags...)
}

// startEventHub is startHubOn443 with all that readers of events look at.
func startEventHub(t *testing.T, address string) *hubProcess {
	t.Helper()
	h := startHubOn443(t, address, "--amqp-addr", net.JoinHostPort(address, "5672"), "--consumer-group", "tools")
	h.plain = true
	return h
}

// eventHub returns the connection string of the built-in endpoint.
func (h *hubProcess) eventHub(t *testing.T, flags ...string) string {
	t.Helper()
	return h.connectionString(t, append([]string{"--event-hub", "--policy", "iothubowner"}, flags...)...)
}

// nodeWith returns the Node program if it finds the packages.
func nodeWith(t *testing.T, packages ...string) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		skip(t, "node is not installed")
	}
	for _, p := range packages {
		if err := exec.Command(node, "-e", "require.resolve("+"'"+p+"')").Run(); err != nil {
			skip(t, "node does not find "+p+": npm install --prefix DIR the packages of e2e/sdk/node/package.json, and set NODE_PATH=DIR/node_modules")
		}
	}
	return node
}

// compileJava compiles the Java programs and returns the class path to run them with.
func compileJava(t *testing.T) string {
	t.Helper()
	libraries := os.Getenv("IOTDM_JAVA_CLASSPATH")
	if libraries == "" {
		skip(t, "IOTDM_JAVA_CLASSPATH is not set: copy the dependencies of e2e/sdk/java/pom.xml to DIR with Maven, and set it to DIR/*")
	}
	for _, program := range []string{"java", "javac", "keytool"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, program+" is not installed")
		}
	}
	sources, err := filepath.Glob("sdk/java/*.java")
	if err != nil {
		t.Fatal(err)
	}
	classes := t.TempDir()
	args := append([]string{"-encoding", "UTF-8", "-cp", libraries, "-d", classes}, sources...)
	if out, err := exec.Command("javac", args...).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return classes + string(os.PathListSeparator) + libraries
}

const storePassword = "changeit"

// trustStore returns a file that has the JVM trust the hub's authority.
func trustStore(t *testing.T, h *hubProcess) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trust.p12")
	for _, v := range h.env(t) {
		ca, ok := strings.CutPrefix(v, "NODE_EXTRA_CA_CERTS=")
		if !ok {
			continue
		}
		cmd := exec.Command("keytool", "-importcert", "-noprompt", "-alias", "hub", "-file", ca, "-keystore", file, "-storepass", storePassword)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("keytool: %v\n%s", err, out)
		}
		return file
	}
	t.Fatal("hub env does not name the authority's file")
	return ""
}

// certificate makes a self-signed client certificate and returns the variables
// that tell the programs where it is.
func certificate(t *testing.T) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "self-signed"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(der)
	return []string{"X509_CERT=" + certFile, "X509_KEY=" + keyFile, "X509_THUMBPRINT=" + hex.EncodeToString(sum[:])}
}
