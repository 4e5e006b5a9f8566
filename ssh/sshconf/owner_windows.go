package sshconf

import "os"

// writableByOthers is not known here: access control lists are not looked at.
func writableByOthers(os.FileInfo) bool { return false }

func keptPrivate(string) error { return nil }
