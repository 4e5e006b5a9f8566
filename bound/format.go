package bound

import (
	"strconv"
	"time"
)

// Format returns a duration in the words that [Bound.String] describes, so that
// ages beside bounds read alike.
func Format(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return number(d, time.Millisecond) + " ms"
	case d.Round(100*time.Millisecond) < 10*time.Second:
		d = d.Round(100 * time.Millisecond)
		text := number(d, time.Second)
		if tenth := d % time.Second; tenth > 0 {
			text += "." + number(tenth, 100*time.Millisecond)
		}
		return text + " s"
	case d.Round(time.Second) < 3*time.Minute:
		return number(d.Round(time.Second), time.Second) + " s"
	case d.Round(time.Second) < 2*time.Hour:
		return pair(d.Round(time.Second), time.Minute, " min", time.Second, " s")
	case d.Round(time.Minute) < 2*day:
		return pair(d.Round(time.Minute), time.Hour, " h", time.Minute, " min")
	default:
		return pair(d.Round(time.Hour), day, " d", time.Hour, " h")
	}
}

// pair returns d in two units, without the smaller where there is none of it.
func pair(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := number(d, large) + largeName
	if d%large > 0 {
		text += " " + number(d%large, small) + smallName
	}
	return text
}

func number(d, unit time.Duration) string { return strconv.FormatInt(int64(d/unit), 10) }
