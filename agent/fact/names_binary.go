package fact

// Executables are the programs found in some places, such as the directories of
// PATH.
type Executables struct {
	Files    int  // that may be executed, each once whatever the number of its names
	Scripts  int  // of them, without a program in them: whatever interprets them resolves their names
	Glibc    bool // the machine has glibc's loader, so that what asks the operating system asks glibc
	Cut      bool // there was no time for all
	Binaries []Binary
}

// Binary is an executable file and what in it can resolve names.
type Binary struct {
	Program
	Called     string // by this name PATH finds it; the path is the file's own
	Loader     string // its dynamic loader; "" = static
	Libc       Libc   // whose functions resolve names in it
	Unreadable string // why it was not looked into; "" = it was

	// Of Go programs: whether package net's own resolver is linked in, and its
	// binding to getaddrinfo; and what a line //go:debug netdns= sets.
	Resolver Known[bool]
	Binding  Known[bool]
	NetDNS   string

	Asks   []Asking // functions of libc that look names up
	Own    []Asking // what puts questions to nameservers without asking libc
	Loads  bool     // it can load more libraries as it runs
	Packed bool     // by a packer of executables, so that nothing in it could be read
	Part   bool     // a library that it needs was not found or not read
}

// Asking is something that resolves names: a function, or a library that is made
// for it.
type Asking struct {
	What string // getaddrinfo, res_nquery, libcares.so.2
	In   string // the library that uses it; "" = the program itself
}

// Libc is a C library.
type Libc uint8

// The C libraries that resolve names differently. Others are unknown.
const (
	LibcUnknown Libc = iota
	Glibc            // by nsswitch.conf
	Musl             // hosts and DNS, whatever nsswitch.conf says
)

var libcNames = [...]string{"", "glibc", "musl"}

func (l Libc) String() string { return nameOf(libcNames[:], int(l)) }
