package wire_test

import "fmt"

func cmpType(v any) string { return fmt.Sprintf("%T", v) }
