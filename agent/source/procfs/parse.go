package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// commBytes is the longest comm of a program: TASK_COMM_LEN without its NUL
// (include/linux/sched.h). Kernel threads may have longer ones.
const commBytes = 15

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go supports (include/uapi/asm-generic/param.h).
const tick = time.Second / 100

// parseCommand splits a command line at its NULs. A program that puts a title
// over its arguments may pad it with NULs or spaces, so those at the end are
// dropped, and with them empty arguments at the end. It is empty, not nil, for
// what has none: kernel threads and zombies. Cut says that there was more.
func parseCommand(text []byte, cut bool) []string {
	trimmed := strings.TrimRight(string(text), "\x00")
	if trimmed == "" {
		return []string{}
	}
	args := strings.Split(trimmed, "\x00")
	last := &args[len(args)-1]
	if cut {
		*last += "…"
	} else if len(args) == 1 {
		*last = strings.TrimRight(*last, " ")
	}
	return args
}

// fullName returns comm, completed from the command line where the kernel cut
// it: from argv[0], or from argv[1] of a script, whose argv[0] is its
// interpreter. What follows a space, and a colon before it, is no part of it, because programs
// put titles over their arguments.
func fullName(comm string, args []string) string {
	if len(comm) != commBytes {
		return comm
	}
	const longest = 255 // NAME_MAX
	for _, rest := range args[:min(2, len(args))] {
		for more := true; more; _, rest, more = strings.Cut(rest, "/") {
			tail, ok := strings.CutPrefix(rest, comm)
			tail, _, _ = strings.Cut(tail, " ")
			tail = strings.TrimSuffix(tail, ":")
			if ok && !strings.Contains(tail, "/") && len(comm)+len(tail) <= longest {
				return comm + tail
			}
		}
	}
	return comm
}

// parseStart returns the time from boot to the start of a process, field 22 of
// /proc/PID/stat. Field 2 is the name in parentheses, which may contain
// anything, parentheses too; no field after it does.
func parseStart(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const start = 22 - 3 // the first of these fields is number 3
	if len(fields) <= start {
		return 0, errors.New("stat has too few fields")
	}
	ticks, err := strconv.ParseInt(string(fields[start]), 10, 64)
	if err != nil || ticks < 0 || ticks > int64(math.MaxInt64/tick) {
		return 0, fmt.Errorf("stat has no start time: %.32q", fields[start])
	}
	return time.Duration(ticks) * tick, nil
}

// parseLimit returns the soft RLIMIT_NOFILE of /proc/PID/limits.
func parseLimit(limits []byte) (uint64, error) {
	const name = "Max open files "
	for line := range bytes.Lines(limits) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			break
		}
		if string(fields[0]) == "unlimited" {
			return math.MaxUint64, nil
		}
		n, err := strconv.ParseUint(string(fields[0]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("limits has no number of open files: %.32q", fields[0])
		}
		return n, nil
	}
	return 0, errors.New("limits has no line for open files")
}

// parseNamespace returns the inode in a link such as net:[4026531840].
func parseNamespace(link string) (uint32, error) {
	digits, ok := strings.CutPrefix(link, "net:[")
	digits, end := strings.CutSuffix(digits, "]")
	inode, err := strconv.ParseUint(digits, 10, 32)
	if !ok || !end || err != nil {
		return 0, fmt.Errorf("not a network namespace: %.32q", link)
	}
	return uint32(inode), nil
}
