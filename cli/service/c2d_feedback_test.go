package service

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubamqp"
)

func TestFeedbackForPeople(t *testing.T) {
	var out bytes.Buffer
	f := hubamqp.Feedback{OriginalMessageID: "m-1", EnqueuedTime: time.Now(), StatusCode: "Success", DeviceID: "d\n1"}
	if err := printFeedback(output.Streams{Out: &out}, output.Options{}, f); err != nil {
		t.Fatal(err)
	}
	want := `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "d\\n1"  m-1  Success\n$`
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("feedback is printed as %q, want %s", out.String(), want)
	}
}
