package rest

import (
	"encoding/json"
	"strconv"
	"time"
)

// A number is an integer in a body. As the service does, it takes a text that
// is one for it: the Azure CLI sends the time limits of a direct method so,
// unless they are given.
type number int64

// UnmarshalJSON reads an integer, or a text that is one.
func (n *number) UnmarshalJSON(b []byte) error {
	if text := string(b); text[0] == '"' {
		text = text[1 : len(text)-1]
		if i, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(i, 10) == text {
			*n = number(i)
			return nil
		}
	}
	return json.Unmarshal(b, (*int64)(n))
}

// responseTimeout is seconds for a response timeout: absent is the hub's own, and
// 0 as wrong as any that is too short.
func responseTimeout(n *number) time.Duration {
	if n != nil && *n == 0 {
		return -1
	}
	return seconds(n, 0)
}

// seconds converts a number of seconds. What no duration can hold is as wrong
// as any negative number.
func seconds(n *number, absent time.Duration) time.Duration {
	const most = number(1<<63-1) / number(time.Second)
	switch {
	case n == nil:
		return absent
	case *n < 0 || *n > most:
		return -1
	default:
		return time.Duration(*n) * time.Second
	}
}
