package tune

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -target bpfel -cc clang -strip llvm-strip -type wish -type answer options options.bpf.c -- -Wall -Werror
//go:generate go tool -modfile=../../../tools/go.mod bpf2go -target bpfel -cc clang -strip llvm-strip -type ceiling clamp clamp.bpf.c -- -Wall -Werror
