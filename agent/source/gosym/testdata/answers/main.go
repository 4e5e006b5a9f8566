// Command answers says of each program counter that it is asked about, on a
// line each, what its own runtime takes it for.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
)

type pair[K, V any] struct {
	key   K
	value V
}

func (p pair[K, V]) String() string { return fmt.Sprint(p.key, p.value) }

func main() {
	// Something generic and something inlined.
	list := []pair[string, int]{{"b", 2}, {"a", 1}}
	slices.SortFunc(list, func(a, b pair[string, int]) int { return a.value - b.value })
	if list[0].String() == "" {
		panic("nothing")
	}
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	for in.Scan() {
		if in.Text() == "" {
			out.Flush()
			continue
		}
		pc, err := strconv.ParseUint(in.Text(), 16, 64)
		if err != nil {
			panic(err)
		}
		frames := runtime.CallersFrames([]uintptr{uintptr(pc) + 1})
		f, _ := frames.Next()
		fmt.Fprintf(out, "%s\t%s\t%d\n", f.Function, f.File, f.Line)
	}
	out.Flush()
}
