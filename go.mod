module github.com/lifeline-go/lifeline

go 1.26.0

require (
	github.com/skeema/knownhosts v1.3.2
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)
