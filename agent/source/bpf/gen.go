package bpf

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -target bpfel -cc clang -strip llvm-strip -type record owners owners.bpf.c -- -Wall -Werror
