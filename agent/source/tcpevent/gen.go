package tcpevent

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -target bpfel -cc clang -strip llvm-strip -type event events tcpevent.bpf.c -- -Wall -Werror
