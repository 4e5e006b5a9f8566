package opener

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -target bpfel -cc clang -strip llvm-strip -type row -type stack -type layout opener opener.bpf.c -- -Wall -Werror
