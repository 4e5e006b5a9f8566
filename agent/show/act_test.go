package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

func TestActJSON(t *testing.T) {
	for _, done := range []bool{false, true} {
		var b bytes.Buffer
		if err := ActJSON(&b, machine(), done, Touched("cut", counts()), verdict.Value{Key: "undo"}); err != nil {
			t.Fatal(err)
		}
		var d struct {
			Schema, Host string
			Blind        []any
			Would, Done  []struct {
				What, Peer string
				Count      int
				Processes  []any
			}
			Undo *string
		}
		if err := json.Unmarshal(b.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		list, other := d.Would, d.Done
		if done {
			list, other = d.Done, d.Would
		}
		if d.Schema != Schema || d.Host == "" || len(d.Blind) != 2 || len(list) != 4 || other != nil || list[0].What != "cut" ||
			list[0].Peer != "10.77.1.2" || list[0].Count != 4224 || len(list[0].Processes) != 4 {
			t.Errorf("done %v: %s", done, b.String())
		}
	}
	var b bytes.Buffer
	if err := ActJSON(&b, machine(), true, nil); err != nil || !strings.Contains(b.String(), `"done": []`) {
		t.Errorf("nothing done: %v %s", err, b.String())
	}
}

func TestTouching(t *testing.T) {
	c := counts()
	c.By = []census.Key{census.Peer, census.Netns}
	var b bytes.Buffer
	Touching(&b, c)
	if lines := strings.Split(b.String(), "\n"); len(lines) != 6 || !strings.HasPrefix(lines[0], "COUNT") || !strings.HasPrefix(lines[1], "4,224") {
		t.Errorf("got\n%s", b.String())
	}
}
