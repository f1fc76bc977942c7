package hub

import "testing"

func TestValidAPIVersionMatchesEveryVersionInUse(t *testing.T) {
	for _, v := range []string{"2016-11-14", "2017-06-30", "2018-06-30", "2019-03-30", "2019-10-01", "2020-03-13", "2020-05-31-preview", "2020-09-30", "2021-04-12", "2024-03-31"} {
		if !ValidAPIVersion(v) {
			t.Errorf("ValidAPIVersion(%q) is false", v)
		}
	}
}
