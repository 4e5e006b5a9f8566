package state

import "testing"

func TestBlindKey(t *testing.T) {
	a, b := Blind{Source: "owners", Error: "of 7 of 90 processes"}, Blind{Source: "owners", Error: "of 12 of 100 processes"}
	if a.Key() != b.Key() {
		t.Errorf("%q and %q are the same gap", a.Key(), b.Key())
	}
	if b.Source = "options"; a.Key() == b.Key() {
		t.Error("gaps of two sources are one")
	}
}
