// Package lifeline is the front door of a library that keeps four promises
// about every network connection of a program:
//
//   - its name resolves,
//   - its calls return,
//   - its silence is noticed,
//   - its socket is closed.
//
// What exists today is package [github.com/lifeline-go/lifeline/bound]: how
// long a failure of a connection can go unnoticed, computed from the options
// of its socket by the kernel's own rules. The lifeline command, which looks at
// a whole machine from outside, is the module
// github.com/lifeline-go/lifeline/agent.
package lifeline
