//go:build !amd64 && !arm64

package callers

func chain(into *uintptr, most int) int { return 0 }
