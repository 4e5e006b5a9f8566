//go:build !linux

package sftp_test

import "errors"

func mount(string, string) error { return errors.ErrUnsupported }
func unmount(string) error       { return nil }
func fifo(string) error          { return errors.ErrUnsupported }
