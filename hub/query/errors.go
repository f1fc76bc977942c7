package query

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Class is the kind of mistake an [Error] reports. The service answers QueryTooLong with the HTTP status 412 and the
// others with 400.
type Class int

// The classes of mistakes.
const (
	ParseError          Class = iota + 1 // the text is not in the language
	UnsupportedFunction                  // a function that twins and jobs cannot be asked with
	UnsupportedClause                    // clauses that do not go together, or not with the collection
	UnknownCollection                    // FROM something else than devices, devices.modules or devices.jobs
	ArgumentNull                         // no text at all
	QueryTooLong                         // more than MaxLength characters
)

// String returns the name of the class.
func (c Class) String() string {
	switch c {
	case ParseError:
		return "ParseError"
	case UnsupportedFunction:
		return "UnsupportedFunction"
	case UnsupportedClause:
		return "UnsupportedClause"
	case UnknownCollection:
		return "UnknownCollection"
	case ArgumentNull:
		return "ArgumentNull"
	case QueryTooLong:
		return "QueryTooLong"
	}
	return fmt.Sprintf("Class(%d)", int(c))
}

// An Error says what is wrong with a query, and where.
type Error struct {
	Class   Class
	Line    int // counts from one; 0 when no place is to blame
	Column  int // characters before the place, counted from zero as the service does
	Message string
}

// Error returns the mistake in one line. It quotes the query sparingly, and never a semicolon, at which the Node SDK
// would cut it.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("SQL query parse failed due to following errors: Line %d:%d %s", e.Line, e.Column, e.Message)
}

// errorAt returns the error for a byte of text.
func errorAt(text string, pos int, class Class, format string, args ...any) *Error {
	before := text[:pos]
	return &Error{
		Class:   class,
		Line:    1 + strings.Count(before, "\n"),
		Column:  utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]),
		Message: fmt.Sprintf(format, args...),
	}
}
