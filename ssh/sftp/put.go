package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// Put copies a file, or with Copy.Tree a directory, to the server. A file whose
// target is a directory is put into it. The error is an [*ssh.Error] in phase
// [Copying]; the connection can be used on unless its cause says otherwise.
func (c *Client) Put(ctx context.Context, local, remote string, how Copy) (Result, error) {
	began := time.Now()
	j := &job{Client: c, how: how}
	if err := j.put(ctx, local, remote); err != nil {
		return j.result, c.fail(began, err)
	}
	return j.result, nil
}

func (j *job) put(ctx context.Context, local, remote string) error {
	if err := j.over(ctx); err != nil {
		return err
	}
	info, err := os.Stat(local)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if !j.how.Tree {
			return fmt.Errorf("%q is a directory: say that the whole tree is meant", local)
		}
		root, err := os.OpenRoot(local)
		if err != nil {
			return err
		}
		defer root.Close()
		return j.putTree(ctx, root, ".", remote, info)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is no regular file", local)
	}
	if there, err := j.stat(ctx, kindStat, remote); err == nil && there.kind().IsDir() {
		remote = path.Join(remote, filepath.Base(local))
	}
	f, err := os.Open(local)
	if err != nil {
		return err
	}
	return j.putFile(ctx, f, local, remote)
}

// putTree copies a directory. It is written to before it gets its permissions.
func (j *job) putTree(ctx context.Context, root *os.Root, dir, remote string, info fs.FileInfo) error {
	if err := j.mkdir(ctx, remote, uint32(info.Mode().Perm()|0o700)); err != nil {
		if there, failed := j.stat(ctx, kindStat, remote); failed != nil || !there.kind().IsDir() {
			return of(remote, err)
		}
	}
	opened, err := root.Open(dir)
	if err != nil {
		return err
	}
	names, err := opened.ReadDir(-1)
	_ = opened.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := j.putEntry(ctx, root, filepath.Join(dir, name.Name()), path.Join(remote, name.Name())); err != nil {
			return err
		}
	}
	j.result.Directories++
	if !j.how.Preserve {
		return nil
	}
	return of(remote, j.setstat(ctx, kindSetstat, remote, kept(info)))
}

func (j *job) putEntry(ctx context.Context, root *os.Root, name, remote string) error {
	if err := j.over(ctx); err != nil {
		return err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return j.putTree(ctx, root, name, remote, info)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return j.putLink(ctx, filepath.ToSlash(target), remote)
	case !info.Mode().IsRegular():
		j.skip(name)
		return nil
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return j.putFile(ctx, f, name, remote)
}

func (j *job) putLink(ctx context.Context, target, remote string) error {
	part := partName(remote)
	_ = j.remove(ctx, part)
	if err := j.symlink(ctx, target, part); err != nil {
		return of(remote, err)
	}
	if err := j.rename(ctx, part, remote); err != nil {
		return of(remote, err)
	}
	j.result.Links++
	return nil
}

// kept are the attributes that Preserve keeps.
func kept(info fs.FileInfo) attrs {
	when := uint32(max(info.ModTime().Unix(), 0))
	return attrs{flags: attrPerm | attrTimes, mode: uint32(info.Mode().Perm()), atime: when, mtime: when}
}

// putFile copies an open file, which it closes.
func (j *job) putFile(ctx context.Context, f *os.File, name, remote string) error {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	j.begun(name, info.Size())
	part := partName(remote)
	var h handle
	var at int64
	if j.how.Resume {
		complete, err := j.putBefore(ctx, f, info, remote)
		if err != nil {
			return of(remote, err)
		}
		if complete {
			j.resumed(info.Size())
			j.finished()
			return nil
		}
		if h, at, err = j.putPart(ctx, f, info, part); err != nil {
			return of(remote, err)
		}
	}
	if h == "" {
		_ = j.remove(ctx, part)
		mode := attrs{flags: attrPerm, mode: uint32(info.Mode().Perm() | 0o600)}
		if h, err = j.open(ctx, part, openWrite|openCreate|openExcl, mode); err != nil {
			return of(remote, err)
		}
	}
	j.resumed(at)
	if err := j.putRest(ctx, f, info, h, at); err != nil {
		err = j.putFailed(ctx, h, part, err)
		return of(remote, err)
	}
	if err := j.close(ctx, h); err != nil {
		return of(remote, err)
	}
	if err := j.rename(ctx, part, remote); err != nil {
		if !j.how.Resume {
			j.removeAnyway(ctx, part)
		}
		return of(remote, err)
	}
	j.finished()
	return nil
}

// putBefore reports whether the target is a complete copy already.
func (j *job) putBefore(ctx context.Context, f *os.File, info fs.FileInfo, remote string) (bool, error) {
	h, n, err := j.openBefore(ctx, remote, info, openRead)
	if h == "" || err != nil {
		return false, err
	}
	defer j.closeAnyway(ctx, h)
	if n != info.Size() {
		return false, nil
	}
	return j.same(ctx, h, f, n)
}

// putPart opens the beginning of a copy, if there is one that can be continued.
func (j *job) putPart(ctx context.Context, f *os.File, info fs.FileInfo, part string) (handle, int64, error) {
	h, n, err := j.openBefore(ctx, part, info, openRead|openWrite)
	if h == "" || err != nil {
		return "", 0, err
	}
	same, err := j.same(ctx, h, f, n)
	if err != nil || !same {
		j.closeAnyway(ctx, h)
		return "", 0, err
	}
	return h, n, nil
}

// openBefore opens what may be a copy, or the beginning of one, from earlier.
func (j *job) openBefore(ctx context.Context, remote string, info fs.FileInfo, flags uint32) (handle, int64, error) {
	var refused *StatusError
	there, err := j.stat(ctx, kindLstat, remote)
	if err == nil && (there.flags&attrSize == 0 || there.kind() != 0 || there.length() > info.Size() || !unchanged(info.ModTime(), there.modTime())) {
		return "", 0, nil
	}
	var h handle
	if err == nil {
		h, err = j.open(ctx, remote, flags, attrs{})
	}
	if errors.As(err, &refused) {
		return "", 0, nil // begins anew, which says what is wrong, if anything
	}
	return h, there.length(), err
}

// putRest copies what is not there, and gives the copy what it is to have.
func (j *job) putRest(ctx context.Context, f *os.File, info fs.FileInfo, h handle, at int64) error {
	done, err := j.upload(ctx, io.NewSectionReader(f, at, 1<<62), h, at, j.moved)
	if err != nil {
		if refused := (*StatusError)(nil); errors.As(err, &refused) && j.how.Resume { // what came after it may be there
			_ = j.setstat(ctx, kindFsetstat, string(h), attrs{flags: attrSize, size: uint64(done)})
		}
		return err
	}
	if done < info.Size() {
		return ErrChanged
	}
	if j.how.Sync {
		if err := j.sync(ctx, h); err != nil {
			return err
		}
	}
	switch mode := uint32(info.Mode().Perm()); {
	case j.how.Preserve:
		return j.setstat(ctx, kindFsetstat, string(h), kept(info))
	case mode&0o600 != 0o600: // they were added to write it
		there, err := j.stat(ctx, kindFstat, string(h))
		if err != nil {
			return err
		}
		return j.setstat(ctx, kindFsetstat, string(h), attrs{flags: attrPerm, mode: there.mode & mode})
	}
	return nil
}

// putFailed closes a copy that has failed, and removes it unless it is to be
// continued. It returns the error, and why there was no room.
func (j *job) putFailed(ctx context.Context, h handle, part string, err error) error {
	var refused *StatusError
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	if errors.As(err, &refused) && refused.Code == statusFailure && j.full(asked, path.Dir(part)) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	j.closeAnyway(ctx, h)
	if !j.how.Resume {
		j.removeAnyway(ctx, part)
	}
	return err
}

func (j *job) removeAnyway(ctx context.Context, part string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	_ = j.remove(ctx, part)
}
