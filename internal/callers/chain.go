//go:build amd64 || arm64

package callers

// chain walks the frame pointers of the calling goroutine, from the frame of its
// caller's caller on. It stops at the last frame, which has none above it, and
// at anything that is not on this goroutine's stack.
//
// It is assembly because nothing may move the stack meanwhile: the runtime
// preempts no assembly.
//
//go:noescape
func chain(into *uintptr, most int) int
