//go:build !linux

package lifelinetest

// descriptors knows no list that every system has; goroutines and connections
// of package lifeline are still looked at.
func descriptors() map[string]string { return nil }

func ends(string) string { return "" }
