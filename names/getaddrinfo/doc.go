// Package getaddrinfo is a way to resolve names for package names: it asks
// getaddrinfo of the C library, from programs that are built without cgo, on
// Linux on amd64 and arm64. Whoever imports it, for its effect alone, lets every
// [names.Resolver] of the program ask this way:
//
//	import _ "github.com/lifeline-go/lifeline/names/getaddrinfo"
//
// Elsewhere the package is empty: programs on darwin and windows ask their
// system anyway.
//
// # What runs
//
// The package carries a small program of 1.8 MB, built from the folder asker.
// With the first question it is written to a sealed memfd and started by the
// dynamic loader of this system's own programs, so it loads the C library, the
// NSS modules and the configuration that those have: glibc or musl. It runs as
// the same user with the same environment, in / and in a process group of its
// own. It is one process, however many questions are asked; it ends when it has
// had none for a while, when [Way.Close] is called, and when this process ends,
// however it ends.
//
// Being a process, it can be killed. So a getaddrinfo that is stuck keeps
// nobody longer than their context, and leaves no thread behind; see [Way.Lookup].
//
// # What is asked
//
// getaddrinfo without flags and for stream sockets, like most programs and Go's
// own cgo resolver. So unlike getent it also finds addresses of a family that
// this machine has no address of itself (no AI_ADDRCONFIG), and for "ip6" it
// never answers with an IPv4 address in disguise (no AI_V4MAPPED).
//
// glibc sees a change of resolv.conf since version 2.26, and of nsswitch.conf
// since 2.33; older ones see it when the program has had no question for a while.
package getaddrinfo
