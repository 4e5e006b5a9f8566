module github.com/lifeline-go/lifeline

go 1.25.0
