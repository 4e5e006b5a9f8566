package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// table is what a measurement prints: what was measured, beside what was aimed
// at, and the one divided by the other.
type table struct {
	title string
	rows  [][4]string
}

func newTable(title string, args ...any) *table { return &table{title: fmt.Sprintf(title, args...)} }

// row adds a line. A ratio of 0 means that there is no aim to compare with.
func (t *table) row(name, measured, aim string, ratio float64) {
	shown := "-"
	if ratio > 0 {
		shown = fmt.Sprintf("%.2f", ratio)
	}
	t.rows = append(t.rows, [4]string{name, measured, aim, shown})
}

// took adds a line about a time that should not be longer than aim; 0 means
// that there is none.
func (t *table) took(name string, d, aim time.Duration) {
	if aim == 0 {
		t.row(name, short(d), "-", 0)
		return
	}
	t.row(name, short(d), "≤ "+short(aim), float64(d)/float64(aim))
}

func (t *table) print() error {
	fmt.Println(t.title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  \tmeasured\taim\tmeasured ÷ aim")
	for _, r := range t.rows {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", r[0], r[1], r[2], r[3])
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// short is a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d < 100*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }
