package state

import (
	"errors"
	"strings"
)

// ErrNotYet is the error of a question to an agent that has not looked yet.
var ErrNotYet = errors.New("no census was taken yet: ask again in a moment")

// Key tells gaps apart from look to look: it is without the numbers of one look,
// such as how many processes there were.
func (b *Blind) Key() string {
	return b.Source + ": " + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, b.Error)
}
