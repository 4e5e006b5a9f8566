// Package callers tells one call stack from another in some tens of
// nanoseconds, where runtime.Callers takes a microsecond: by the return
// addresses that frame pointers lead to. They are a key, and not a stack to show,
// because functions that the compiler inlined have none.
package callers

// Most is how many return addresses a key has at most.
const Most = 32

// A Key is the return addresses of the frames of a goroutine, from the caller of
// the function that made the key on. What was not used is zero.
type Key [Most]uintptr

// Fill fills the key and returns how many addresses it has; 0 when this
// architecture keeps no frame pointers. When it has Most of them there may be
// more frames than that.
func (k *Key) Fill() int { return chain(&k[0], Most) }
