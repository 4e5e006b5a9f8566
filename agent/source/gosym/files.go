package gosym

import (
	"os"
	"sync"
	"syscall"
)

// mostFiles bounds the files of which something is remembered, and mostAnswers
// what is of each; a machine runs a few hundred programs.
const (
	mostFiles   = 512
	mostAnswers = 64
)

// identity changes with the content of a file: writing to it changes its ctime,
// which no program can set. The zero one is that of no file.
type identity struct {
	dev, inode   uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func identityOf(file *os.File) (id identity) {
	info, err := file.Stat()
	if err != nil {
		return id
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return id
	}
	return identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// files is what the searches in files brought that take a pass over them, one for
// all tables: programs are started again and again, and run many times over.
var files struct {
	sync.Mutex
	answers map[identity]map[string]answer
}

type answer struct {
	value any
	err   error
}

// remember returns what find returns, without calling it where the question was
// asked of the same file before. What a file that could not be read seems to say
// is not kept.
func remember[T any](t *Table, question string, find func() (T, error)) (T, error) {
	if t.id == (identity{}) {
		return find()
	}
	files.Lock()
	kept, found := files.answers[t.id][question]
	files.Unlock()
	if value, ok := kept.value.(T); found && ok {
		return value, kept.err
	}
	value, err := find()
	if t.im.failed {
		return value, err
	}
	files.Lock()
	defer files.Unlock()
	of := files.answers[t.id]
	if of == nil {
		if files.answers == nil || len(files.answers) >= mostFiles {
			files.answers = make(map[identity]map[string]answer)
		}
		of = make(map[string]answer)
		files.answers[t.id] = of
	}
	if len(of) < mostAnswers {
		of[question] = answer{value, err}
	}
	return value, err
}
