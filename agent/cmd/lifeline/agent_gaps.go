package main

import (
	"log/slog"
	"regexp"

	"github.com/lifeline-go/lifeline/agent/state"
)

// mostGaps bounds what is remembered of gaps: beyond, they are told again.
const mostGaps = 1000

// gaps tell in the log what cannot be seen, once, and which sources are late or
// fail, until they look again. The zero gaps have told nothing.
type gaps struct {
	told    map[string]bool   // by state.Blind.Key
	failing map[string]string // sources, and why, without numbers
}

var digits = regexp.MustCompile(`[0-9]+`)

// tell writes what is new.
func (g *gaps) tell(log *slog.Logger, s *state.State) {
	if g.told == nil || len(g.told) > mostGaps {
		g.told = make(map[string]bool)
	}
	if g.failing == nil {
		g.failing = make(map[string]string)
	}
	for i := range s.Blind {
		b := &s.Blind[i]
		key := b.Key()
		if g.told[key] {
			continue
		}
		g.told[key] = true
		about := []any{"source", b.Source, "error", b.Error}
		if b.Needs != nil {
			about = append(about, "needs", *b.Needs)
		}
		log.Warn("cannot be seen", about...)
	}
	for i := range s.Sources {
		src := &s.Sources[i]
		why := digits.ReplaceAllString(src.Error, "")
		was := g.failing[src.Name]
		switch {
		case why == was:
		case why == "":
			log.Info("source looks again", "source", src.Name)
		case src.Late:
			log.Warn("source is late", "source", src.Name, "error", src.Error)
		default:
			log.Warn("source failed", "source", src.Name, "error", src.Error)
		}
		g.failing[src.Name] = why
	}
}
