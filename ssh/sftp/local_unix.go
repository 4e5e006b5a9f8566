//go:build unix

package sftp

func localName(string) bool { return true }
func localLink(string) bool { return true }
