package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPoke(t *testing.T) {
	near, far, _ := wired(t, 4)
	stdout, stderr, code := other(t, "poke", "10.77.1.2", "--netns", near.Path())
	if code != exitWell || !strings.HasPrefix(stdout, "10.77.1.2 is alive: 10.77.1.2:80 answered 10.77.1.1:") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	far.Unplug()
	stdout, stderr, code = other(t, "poke", "10.77.1.2", "--netns", near.Path())
	if code != exitFindings || !strings.HasPrefix(stdout, "10.77.1.2 is silent: nothing came on 3 connections in ") || !strings.Contains(stdout, "(3 unanswered)") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}

	stdout, stderr, code = other(t, "poke", "10.77.1.2", "--netns", near.Path(), "--json")
	var d struct {
		Done []struct {
			What, Peer, Netns, Verdict string
			Count, MS                  int
			Evidence                   []struct {
				Local, Outcome string
				After          *int `json:"after_ms"`
				Probes         int
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v:\n%s%s", err, stdout, stderr)
	}
	if code != exitFindings || len(d.Done) != 1 {
		t.Fatalf("exit code %d: %+v", code, d)
	}
	if p := d.Done[0]; p.What != "poke" || p.Peer != "10.77.1.2" || !strings.HasSuffix(near.Path(), "/"+p.Netns) || p.Verdict != "silent" ||
		p.Count != 3 || p.Evidence[0].Outcome != "unanswered" || p.Evidence[0].After != nil || p.Evidence[0].Probes == 0 {
		t.Errorf("got %+v", p)
	}
}
