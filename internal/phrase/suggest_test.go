package phrase

import "testing"

func TestDidYouMean(t *testing.T) {
	names := []string{"reboot", "method", "twin", "device", "configuration", "d", "--from", "--follow"}
	for typed, want := range map[string]string{
		"rebot":  `, did you mean "reboot"?`,
		"reboto": `, did you mean "reboot"?`,
		"twim":   `, did you mean "twin"?`,
		"devise": `, did you mean "device"?`,
		"tiwn":   `, did you mean "twin"?`,
		"--form": `, did you mean "--from"?`,

		"configurations":  `, did you mean "configuration"?`,
		"confgiuratoin":   `, did you mean "configuration"?`,
		"confguraton-set": "",

		"tw":     "",
		"win":    `, did you mean "twin"?`,
		"wino":   "",
		"bewood": "",
		"--foo":  "",
		"--fo":   "",
		"x":      "",
		"xyzzy":  "",
		"":       "",
	} {
		if got := DidYouMean(typed, names); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", typed, got, want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "adc", 1}, {"abc", "acb", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
