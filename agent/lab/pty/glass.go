package pty

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// glass is the screen of a terminal: a small part of what xterm knows, that which
// programs use which draw whole screens.
type glass struct {
	width, height int
	cells         [][]rune
	x, y          int
	top, bottom   int // of what scrolls
	last          rune
	alt, hidden   bool
	insert        bool
	saved         [2]int
	main          [][]rune // while the other one is shown
	pending       []byte   // a sequence that is not all there
	unknown       []string
}

func blank(width, height int) [][]rune {
	cells := make([][]rune, height)
	for y := range cells {
		cells[y] = slices.Repeat([]rune{' '}, width)
	}
	return cells
}

func (g *glass) resize(width, height int) {
	cells := blank(width, height)
	for y := range min(height, len(g.cells)) {
		copy(cells[y], g.cells[y])
	}
	g.width, g.height, g.cells, g.top, g.bottom = width, height, cells, 0, height-1
	g.x, g.y = min(g.x, width-1), min(g.y, height-1)
}

func (g *glass) text() string {
	var lines []string
	for _, row := range g.cells {
		lines = append(lines, strings.TrimRight(strings.ReplaceAll(string(row), "\x00", ""), " "))
	}
	return strings.Join(lines, "\n")
}

func (g *glass) write(p []byte) {
	p = append(g.pending, p...)
	for len(p) > 0 {
		n := g.one(p)
		if n == 0 {
			break
		}
		p = p[n:]
	}
	g.pending = slices.Clone(p)
}

// one takes one character or sequence; 0 when it is not all there.
func (g *glass) one(p []byte) int {
	switch c := p[0]; {
	case c == 0x1b:
		return g.escape(p)
	case c < ' ' || c == 0x7f:
		g.controlChar(c)
		return 1
	case !utf8.FullRune(p):
		return 0
	}
	r, size := utf8.DecodeRune(p)
	g.put(r)
	return size
}

func (g *glass) controlChar(c byte) {
	switch c {
	case '\r':
		g.x = 0
	case '\n':
		g.feed()
	case '\b':
		g.x = max(g.x-1, 0)
	case '\t':
		g.x = min((g.x/8+1)*8, g.width-1)
	case 7:
	default:
		g.unknown = append(g.unknown, fmt.Sprintf("%q", c))
	}
}

func (g *glass) feed() {
	if g.y == g.bottom {
		g.scroll(g.top, 1)
	} else {
		g.y = min(g.y+1, g.height-1)
	}
}

// scroll moves lines from a place to the bottom up, or down when n is negative.
func (g *glass) scroll(from, n int) {
	for range max(n, -n) {
		row := slices.Repeat([]rune{' '}, g.width)
		if n > 0 {
			g.cells = slices.Insert(slices.Delete(g.cells, from, from+1), g.bottom, row)
		} else {
			g.cells = slices.Insert(slices.Delete(g.cells, g.bottom, g.bottom+1), from, row)
		}
	}
}

func (g *glass) put(r rune) {
	if g.x >= g.width { // it stood behind the last column
		g.x = 0
		g.feed()
	}
	if g.insert {
		g.csi("", '@')
	}
	g.cells[g.y][g.x], g.last = r, r
	g.x++
}

// escape takes a sequence.
func (g *glass) escape(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch p[1] {
	case '[':
		end := slices.IndexFunc(p[2:], func(c byte) bool { return c >= '@' && c <= '~' })
		if end < 0 {
			return 0
		}
		g.csi(string(p[2:2+end]), p[2+end])
		return end + 3
	case ']', 'P', '_', '^': // up to BEL or ST
		for i := 2; i < len(p); i++ {
			if p[i] == 7 {
				return i + 1
			}
			if p[i] == 0x1b && i+1 < len(p) {
				return i + 2
			}
		}
		return 0
	case '(', ')':
		if len(p) < 3 {
			return 0
		}
		return 3
	case '7':
		g.saved = [2]int{g.x, g.y}
	case '8':
		g.x, g.y = g.saved[0], g.saved[1]
	case 'M':
		if g.y == g.top {
			g.scroll(g.top, -1)
		} else {
			g.y--
		}
	case '=', '>', '\\':
	default:
		g.unknown = append(g.unknown, fmt.Sprintf("%q", p[:2]))
	}
	return 2
}

// csi does what a sequence of that kind says.
func (g *glass) csi(args string, final byte) {
	if strings.ContainsAny(args, "?<=>$ !") {
		g.private(args, final)
		return
	}
	var numbers []int
	for part := range strings.SplitSeq(args, ";") {
		n, _ := strconv.Atoi(part) // none is 0
		numbers = append(numbers, n)
	}
	first, n := numbers[0], max(numbers[0], 1)
	switch final {
	case 'A', 'B', 'C', 'D', 'E', 'F', 'G', '`', 'd', 'H', 'f', 'I', 'Z':
		g.move(final, n, numbers)
	case 'J':
		g.erase(first, 0, g.height-1, g.y)
	case 'K':
		g.eraseLine(first)
	case 'X':
		g.fill(g.x, g.x+n)
	case '@':
		row := slices.Insert(g.cells[g.y], min(g.x, g.width), slices.Repeat([]rune{' '}, n)...)
		g.cells[g.y] = row[:g.width]
	case 'P':
		row := g.cells[g.y]
		row = append(slices.Delete(row, g.x, min(g.x+n, g.width)), slices.Repeat([]rune{' '}, n)...)
		g.cells[g.y] = row[:g.width]
	case 'L':
		g.scroll(g.y, -n)
	case 'M':
		g.scroll(g.y, n)
	case 'S':
		g.scroll(g.top, n)
	case 'T':
		g.scroll(g.top, -n)
	case 'b':
		for range n {
			g.put(g.last)
		}
	case 'r':
		g.top, g.bottom = max(first-1, 0), g.height-1
		if len(numbers) > 1 && numbers[1] > 0 {
			g.bottom = min(numbers[1], g.height) - 1
		}
		g.x, g.y = 0, 0
	case 'h', 'l':
		g.insert = first == 4 && final == 'h'
	case 'm', 'n', 'c', 't', 'u', 's':
	default:
		g.unknown = append(g.unknown, fmt.Sprintf("CSI %s %c", args, final))
	}
}

func (g *glass) move(final byte, n int, numbers []int) {
	switch final {
	case 'A', 'F':
		g.y -= n
	case 'B', 'E':
		g.y += n
	case 'C':
		g.x += n
	case 'D':
		g.x = min(g.x, g.width-1) - n
	case 'G', '`':
		g.x = n - 1
	case 'd':
		g.y = n - 1
	case 'H', 'f':
		g.y, g.x = n-1, 0
		if len(numbers) > 1 {
			g.x = max(numbers[1], 1) - 1
		}
	case 'I':
		g.x = (g.x/8 + n) * 8
	case 'Z':
		g.x = ((g.x+7)/8 - n) * 8
	}
	if final == 'E' || final == 'F' {
		g.x = 0
	}
	g.x, g.y = max(min(g.x, g.width-1), 0), max(min(g.y, g.height-1), 0)
}

func (g *glass) fill(from, to int) {
	for x := max(from, 0); x < min(to, g.width); x++ {
		g.cells[g.y][x] = ' '
	}
}

func (g *glass) eraseLine(how int) {
	switch how {
	case 0:
		g.fill(g.x, g.width)
	case 1:
		g.fill(0, g.x+1)
	default:
		g.fill(0, g.width)
	}
}

func (g *glass) erase(how, from, to, at int) {
	switch how {
	case 0:
		g.eraseLine(0)
		from = at + 1
	case 1:
		g.eraseLine(1)
		to = at - 1
	}
	for y := from; y <= to; y++ {
		g.cells[y] = slices.Repeat([]rune{' '}, g.width)
	}
}

// private are modes, and questions, which are not answered.
func (g *glass) private(args string, final byte) {
	modes, is := strings.CutPrefix(args, "?")
	if !is || final != 'h' && final != 'l' {
		return
	}
	on := final == 'h'
	for mode := range strings.SplitSeq(modes, ";") {
		switch mode {
		case "25":
			g.hidden = !on
		case "1049", "1047", "47":
			if on == g.alt {
				continue
			}
			if g.alt = on; on {
				g.main, g.cells = g.cells, blank(g.width, g.height)
				g.saved = [2]int{g.x, g.y}
			} else {
				g.cells = g.main
				g.x, g.y = g.saved[0], g.saved[1]
				g.resize(g.width, g.height)
			}
		}
	}
}
