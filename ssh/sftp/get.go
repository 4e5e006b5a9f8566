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

// Get copies a file, or with Copy.Tree a directory, from the server. A file
// whose target is a directory is put into it. The error is as that of
// [Client.Put].
func (c *Client) Get(ctx context.Context, remote, local string, how Copy) (Result, error) {
	began := time.Now()
	j := &job{Client: c, how: how}
	if err := j.get(ctx, remote, local); err != nil {
		return j.result, c.fail(began, err)
	}
	return j.result, nil
}

func (j *job) get(ctx context.Context, remote, local string) error {
	there, err := j.stat(ctx, kindStat, remote)
	if err != nil {
		return of(remote, err)
	}
	switch {
	case there.kind().IsDir() && !j.how.Tree:
		return fmt.Errorf("%q is a directory: say that the whole tree is meant", remote)
	case !there.kind().IsDir() && there.kind() != 0:
		return fmt.Errorf("%q is no regular file", remote)
	}
	if j.how.Parents {
		if err := j.parents(ctx, remote, there, filepath.Dir(local)); err != nil {
			return err
		}
	}
	if there.kind().IsDir() {
		if err := os.Mkdir(local, there.perm()|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		root, err := os.OpenRoot(local)
		if err != nil {
			return err
		}
		defer root.Close()
		return j.getTree(ctx, remote, there, root, ".", 0)
	}
	if info, err := os.Stat(local); err == nil && info.IsDir() {
		name := path.Base(remote)
		if !plainName(name) {
			return fmt.Errorf("%q: say what the copy is to be called", remote)
		}
		local = filepath.Join(local, name)
	}
	root, err := os.OpenRoot(filepath.Dir(local))
	if err != nil {
		return err
	}
	defer root.Close()
	return j.getFile(ctx, remote, root, filepath.Base(local))
}

// parents makes the directory that the copy is to be in. A source that cannot be read
// leaves none behind.
func (j *job) parents(ctx context.Context, remote string, there attrs, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if there.kind().IsDir() {
		if _, err := j.list(ctx, remote); err != nil {
			return of(remote, err)
		}
	} else {
		h, err := j.open(ctx, remote, openRead, attrs{})
		if err != nil {
			return of(remote, err)
		}
		j.closeAnyway(ctx, h)
	}
	return os.MkdirAll(dir, 0o777)
}

// getTree copies what is in a directory into one that is there.
func (j *job) getTree(ctx context.Context, remote string, there attrs, root *os.Root, dir string, depth int) error {
	if depth > mostDepth {
		return fmt.Errorf("%q: deeper than %d directories", remote, mostDepth)
	}
	all, err := j.list(ctx, remote)
	if err != nil {
		return of(remote, err)
	}
	for _, e := range all {
		if err := j.getEntry(ctx, path.Join(remote, e.name), e.attrs, root, filepath.Join(dir, e.name), depth); err != nil {
			return err
		}
	}
	j.result.Directories++
	if !j.how.Preserve || there.flags&attrPerm == 0 {
		return nil
	}
	if err := root.Chmod(dir, there.perm()); err != nil {
		return err
	}
	if there.flags&attrTimes == 0 {
		return nil
	}
	return root.Chtimes(dir, there.modTime(), there.modTime())
}

func (j *job) getEntry(ctx context.Context, remote string, there attrs, root *os.Root, name string, depth int) (err error) {
	if err := j.over(ctx); err != nil {
		return err
	}
	if there.flags&attrPerm == 0 {
		if there, err = j.stat(ctx, kindLstat, remote); err != nil {
			return of(remote, err)
		}
	}
	switch there.kind() {
	case 0:
		return j.getFile(ctx, remote, root, name)
	case fs.ModeDir:
		if err := root.Mkdir(name, there.perm()|0o700); err != nil {
			if info, failed := root.Lstat(name); failed != nil || !info.IsDir() {
				return err
			}
		}
		return j.getTree(ctx, remote, there, root, name, depth+1)
	case fs.ModeSymlink:
		return j.getLink(ctx, remote, root, name, depth)
	}
	j.skip(remote)
	return nil
}

func (j *job) getLink(ctx context.Context, remote string, root *os.Root, name string, depth int) error {
	target, err := j.readlink(ctx, remote)
	if err != nil {
		return of(remote, err)
	}
	if !j.how.OutsideLinks && leadsOut(target, depth) {
		j.skip(remote)
		return nil
	}
	part := filepath.FromSlash(partName(filepath.ToSlash(name)))
	_ = root.Remove(part)
	if err := root.Symlink(filepath.FromSlash(target), part); err != nil {
		return err
	}
	if err := root.Rename(part, name); err != nil {
		return err
	}
	j.result.Links++
	return nil
}

// getFile copies a file to a name in a directory that it cannot leave.
func (j *job) getFile(ctx context.Context, remote string, root *os.Root, name string) error {
	h, err := j.open(ctx, remote, openRead, attrs{})
	if err != nil {
		return of(remote, err)
	}
	defer j.closeAnyway(ctx, h)
	there, err := j.stat(ctx, kindFstat, string(h))
	if err != nil {
		return of(remote, err)
	}
	j.begun(remote, there.length())
	part := filepath.FromSlash(partName(filepath.ToSlash(name)))
	var f *os.File
	var at int64
	if j.how.Resume {
		complete, err := j.getComplete(ctx, h, there, root, name)
		if err != nil {
			return of(remote, err)
		}
		if complete {
			j.resumed(there.length())
			j.finished()
			return nil
		}
		if f, at, err = j.getBefore(ctx, h, there, root, part, os.O_RDWR); err != nil {
			return of(remote, err)
		}
	}
	if f == nil {
		_ = root.Remove(part)
		mode := fs.FileMode(0o666)
		if there.flags&attrPerm != 0 {
			mode = there.perm() | 0o600
		}
		if f, err = root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode); err != nil {
			return err
		}
	}
	j.resumed(at)
	err = errors.Join(j.getRest(ctx, h, there, f, at), f.Close())
	if err == nil {
		err = j.getTimes(root, part, there)
	}
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		if !j.how.Resume {
			_ = root.Remove(part)
		}
		return of(remote, err)
	}
	j.finished()
	return nil
}

// getComplete reports whether the target is a complete copy already.
func (j *job) getComplete(ctx context.Context, h handle, there attrs, root *os.Root, name string) (bool, error) {
	if info, err := root.Lstat(name); err != nil || info.Size() != there.length() {
		return false, nil
	}
	f, _, err := j.getBefore(ctx, h, there, root, name, os.O_RDONLY)
	if f == nil {
		return false, err
	}
	return true, f.Close()
}

// getBefore opens what is a copy from earlier, or the beginning of one.
func (j *job) getBefore(ctx context.Context, h handle, there attrs, root *os.Root, name string, flags int) (*os.File, int64, error) {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > there.length() || there.flags&attrTimes == 0 || !unchanged(there.modTime(), info.ModTime()) {
		return nil, 0, nil
	}
	f, err := root.OpenFile(name, flags, 0)
	if err != nil {
		return nil, 0, nil // begins anew, which says what is wrong, if anything
	}
	same, err := j.same(ctx, h, f, info.Size())
	if err != nil || !same {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// getRest copies what is not there.
func (j *job) getRest(ctx context.Context, h handle, there attrs, f *os.File, at int64) error {
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if err := j.download(ctx, h, f, at, there.length(), j.moved); err != nil {
		return err
	}
	if j.how.Sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if there.flags&attrPerm == 0 {
		return nil
	}
	mode := there.perm()
	switch {
	case j.how.Preserve:
	case mode&0o600 != 0o600: // they were added to write it
		info, err := f.Stat()
		if err != nil {
			return err
		}
		mode &= info.Mode().Perm()
	default:
		return nil
	}
	return f.Chmod(mode)
}

func (j *job) getTimes(root *os.Root, part string, there attrs) error {
	if !j.how.Preserve || there.flags&attrTimes == 0 {
		return nil
	}
	return root.Chtimes(part, there.modTime(), there.modTime())
}
