package sftp

import (
	"path/filepath"
	"strings"
)

// localName refuses what Windows takes for a path, a stream or a device.
func localName(name string) bool {
	return !strings.ContainsAny(name, `\:`) && filepath.IsLocal(name)
}

func localLink(target string) bool { return !strings.ContainsAny(target, `\:`) }
