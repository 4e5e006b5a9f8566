module github.com/lifeline-go/lifeline

go 1.26.0

require (
	golang.org/x/crypto v0.58.0
	golang.org/x/net v0.60.0
	golang.org/x/sys v0.49.0
)
