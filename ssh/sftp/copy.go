package sftp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Copy says how to copy. The zero value is the recommended one for a file.
type Copy struct {
	// Tree allows the source to be a directory, which is copied with all that is
	// in it into the target, beside what is there. Symbolic links are copied as
	// links. What is no file, directory or link is left out, see Result.
	Tree bool
	// Resume continues a copy that was interrupted, and keeps what there is when
	// it is interrupted (again). What is there is taken for the beginning of the
	// source if it is not longer, was written after the source was last changed,
	// and is the same: its last 4 MiB, and samples of the rest. Otherwise it begins
	// anew, as it does without Resume. A target that is complete by the same rule is
	// not copied again. Do not use it where others may write to the target's
	// directory.
	Resume bool
	// Preserve gives the target the permissions, without setuid and the like, and
	// the times of the source. Otherwise it gets the permissions as far as the
	// umask allows, and the present time.
	Preserve bool
	// Sync waits until the copy is on the disk, where the server can tell, before
	// it takes the target's name.
	Sync bool
	// Parents has Get make the directories that the target is to be in, once it
	// knows that the source is there and can be read. Put makes none.
	Parents bool
	// OutsideLinks has Get make symbolic links too that lead out of the tree, or
	// may. Otherwise they are left out.
	OutsideLinks bool
	// Progress is called by the one who copies, ten times a second at most, and at
	// the end of each file. The copy goes on when it returns.
	Progress func(Progress)
}

// Progress is how far a copy is.
type Progress struct {
	Name  string // of the file under way, as the source has it
	Done  int64  // bytes of it that are in the target
	Size  int64  // of it, as it was when its copy began
	Total Result // of the copy so far
}

// Result is what a copy did. It is given also with an error.
type Result struct {
	Files, Directories, Links int   // that are complete
	Bytes                     int64 // that were copied
	Resumed                   int64 // bytes that were there
	// Skipped are the first thousand sources that were left out because they are no file,
	// directory or link, or a link out of the tree.
	Skipped []string
}

const mostSkipped = 1000

// mostDepth is how deep a tree may be: a server could make it endless.
const mostDepth = 256

// job is a copy under way.
type job struct {
	*Client
	how    Copy
	result Result
	now    Progress
	told   time.Time
}

const tellEvery = 100 * time.Millisecond

func (j *job) begun(name string, size int64) {
	j.now = Progress{Name: name, Size: size}
}

func (j *job) resumed(n int64) {
	j.now.Done += n
	j.result.Resumed += n
}

func (j *job) moved(n int) {
	j.now.Done += int64(n)
	j.result.Bytes += int64(n)
	if time.Since(j.told) >= tellEvery {
		j.tell()
	}
}

func (j *job) finished() {
	j.result.Files++
	j.tell()
}

func (j *job) tell() {
	if j.how.Progress == nil {
		return
	}
	j.told, j.now.Total = time.Now(), j.result
	j.how.Progress(j.now)
}

func (j *job) skip(name string) {
	if len(j.result.Skipped) < mostSkipped {
		j.result.Skipped = append(j.result.Skipped, name)
	}
}

// of adds the name that an error is about.
func of(name string, err error) error {
	var told *fs.PathError
	if err == nil || errors.As(err, &told) {
		return err
	}
	return fmt.Errorf("%q: %w", name, err)
}

// partName is what a copy is called until it is complete, beside its target.
func partName(target string) string {
	dir, name := path.Split(target)
	if len(name) > 200 { // 255 are the most on nearly all file systems
		name = fmt.Sprintf("%s-%x", name[:180], sha256.Sum256([]byte(name)))[:200]
	}
	return dir + "." + name + ".lifeline-part"
}

// unchanged reports whether a copy that was last written at one time can be of
// the source as it was changed last at another. The server's times are in whole
// seconds.
func unchanged(source, written time.Time) bool {
	return written.Unix() >= source.Unix()
}

// leadsOut reports whether a link, in a directory so deep in a tree, leads out
// of it, or may: after a name, a step up is from wherever that leads.
func leadsOut(target string, depth int) bool {
	if target == "" || strings.HasPrefix(target, "/") || !localLink(target) {
		return true
	}
	named := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 || named {
				return true
			}
		default:
			named = true
		}
	}
	return false
}

// over reports why a copy has to stop.
func (j *job) over(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-j.dead:
		return j.cause
	default:
		return nil
	}
}
