package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommand(t *testing.T) {
	for _, tt := range []struct {
		text  string
		want  Command
		error string
	}{
		{text: "reset", want: Command{Args: []string{"reset"}}},
		{text: `  log -n 5 "a b" 'c$d|e' f\ g "" `, want: Command{Args: []string{"log", "-n", "5", "a b", "c$d|e", "f g", ""}}},
		{text: "echo $HOME", want: Command{Args: []string{"echo", "$HOME"}}},
		{text: "shell: a | b $c 'd", want: Command{Script: "a | b $c 'd"}},
		{text: "concurrent:a", want: Command{Args: []string{"a"}, Concurrent: true}},
		{text: "concurrent: shell:a", want: Command{Script: "a", Concurrent: true}},
		{text: "timeout=5m: concurrent:a b", want: Command{Args: []string{"a", "b"}, Concurrent: true, Timeout: 5 * time.Minute}},
		{text: "timeout=1s:shell:a:b", want: Command{Script: "a:b", Timeout: time.Second}},
		{text: "timeout=5:a", error: `what is after "timeout=" is no duration and a colon, as in "timeout=5m:"`},
		{text: "timeout=0s:a", error: `what is after "timeout=" is no duration and a colon, as in "timeout=5m:"`},
		{text: "timeout=5m", error: `what is after "timeout=" is no duration and a colon, as in "timeout=5m:"`},
		{text: "", error: "there is no command"},
		{text: `""`, error: "there is no command"},
		{text: "shell: ", error: `there is no command after "shell:"`},
		{text: "a | b", error: "a | b has shell syntax; write shell: before it to have the shell run it, or put quotes around it"},
		{text: "a > b", error: "a > b has shell syntax; write shell: before it to have the shell run it, or put quotes around it"},
		{text: "a 'b", error: "a 'b has an open quote or shell syntax; write shell: before it to have the shell run it"},
		{text: "a $IOTDM_METHOD", error: "a $IOTDM_METHOD has a variable; write shell: before it to have the shell put in its value"},
		{text: "a (b)", error: "a (b) has an open quote or shell syntax; write shell: before it to have the shell run it"},
	} {
		got, err := ParseCommand(tt.text)
		message := ""
		if err != nil {
			message = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || message != tt.error {
			t.Errorf("ParseCommand(%q) fails with %q, want %q (-want +got):\n%s", tt.text, message, tt.error, diff)
		}
	}
}

func TestCommandEnvironmentHasNoSecrets(t *testing.T) {
	inherited := []string{
		"PATH=/bin",
		"IOTHUB_DEVICE_CONNECTION_STRING=x",
		"IOTHUB_CONNECTION_STRING=x",
		"AZURE_CLIENT_SECRET=x",
		"MY_HUB=HostName=h;DeviceId=d;SharedAccessKey=x",
		"TOKEN=SharedAccessSignature sr=h&sig=x",
		"NOTIFY_SOCKET=/run/x",
		"WATCHDOG_USEC=1",
		"CREDENTIALS_DIRECTORY=/run/x",
		"NOTIFY_SOCKETS=not it",
		"IOTDM_DATA=/data",
	}
	want := []string{"PATH=/bin", "NOTIFY_SOCKETS=not it", "IOTDM_DATA=/data", "IOTDM_METHOD=m"}
	if diff := cmp.Diff(want, commandEnv(inherited, []string{"IOTDM_METHOD=m"})); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// A busy machine may not come to start a command before its time is over.
func TestCommandWithoutTimeToStart(t *testing.T) {
	r := Command{Args: []string{"go"}, Timeout: 1}.run(t.Context(), nil, nil, 10)
	if r.status() != 504 || r.text() != "the command did not end in time and was killed (after 1ns)" {
		t.Errorf("status %d, %q", r.status(), r.text())
	}
}

func TestByteCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 5 << 20: "5 MiB", 1<<63 - 1: "8 EiB"} {
		if got := byteCount(n); got != want {
			t.Errorf("byteCount(%d) is %q, want %q", n, got, want)
		}
	}
}
