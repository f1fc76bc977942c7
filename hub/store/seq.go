package store

import "iter"

// Seq returns an iterator over what a walk by callback yields. When the loop
// over it ends early, the walk is given [ErrStop]; the walk's own error is the
// last thing the loop sees.
func Seq[T any](walk func(yield func(T) error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped := false
		err := walk(func(v T) error {
			if !yield(v, nil) {
				stopped = true
				return ErrStop
			}
			return nil
		})
		if err != nil && !stopped {
			var none T
			yield(none, err)
		}
	}
}
