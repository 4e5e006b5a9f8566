package sshconf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
	xssh "golang.org/x/crypto/ssh"
)

// algorithms takes the lists of algorithms, as far as x/crypto/ssh has them.
func (s *settings) algorithms() error {
	h, good, bad := s.host, xssh.SupportedAlgorithms(), xssh.InsecureAlgorithms()
	for _, a := range []struct {
		keyword   string
		into      *[]string
		good, bad []string
	}{
		{"hostkeyalgorithms", &h.HostKeyAlgorithms, good.HostKeys, bad.HostKeys},
		{"ciphers", &h.Ciphers, good.Ciphers, bad.Ciphers},
		{"macs", &h.MACs, good.MACs, bad.MACs},
		{"kexalgorithms", &h.KeyExchanges, good.KeyExchanges, bad.KeyExchanges},
	} {
		text := s.values.one(a.keyword)
		if text == "" {
			continue
		}
		chosen, without := choose(text, a.good, a.bad)
		if len(chosen) == 0 {
			return fmt.Errorf("%s %s leaves nothing that is supported; there are: %s", a.keyword, text, strings.Join(append(a.good, a.bad...), ","))
		}
		if len(without) > 0 {
			h.Warnings = append(h.Warnings, Warning{Position{File: h.Alias}, fmt.Sprintf("%s: not supported: %s", a.keyword, strings.Join(without, ","))})
		}
		*a.into = chosen
	}
	text := s.values.one("hostkeyalgorithms")
	h.knownFirst = text == "" || text[0] == '+' || text[0] == '-' // use_known_hosts_order in sshconnect2.c
	return nil
}

// choose returns the algorithms of a list as ssh_config(5) has them: a list by
// itself, or one that is added to the usual ones (+), taken away (-) or put first
// (^). Without are those that nobody here has.
func choose(text string, usual, weak []string) (chosen, without []string) {
	mode := text[0]
	if strings.IndexByte("+-^", mode) >= 0 {
		text = text[1:]
	}
	var named []string
	for name := range strings.SplitSeq(text, ",") {
		switch {
		case mode == '-' || slices.Contains(usual, name) || slices.Contains(weak, name):
			if !slices.Contains(named, name) {
				named = append(named, name)
			}
		case name != "":
			without = append(without, name)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(usual), func(name string) bool { return knownhosts.MatchesAny(named, name) })
	switch mode {
	case '+':
		return append(slices.Clone(usual), slices.DeleteFunc(named, func(name string) bool { return slices.Contains(usual, name) })...), without
	case '-':
		return rest, nil
	case '^':
		return append(named, rest...), without
	default:
		return named, without
	}
}
