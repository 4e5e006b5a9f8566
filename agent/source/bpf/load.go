package bpf

import (
	"bytes"
	"errors"
	"io"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// function is what the kernel calls the iterator's signature,
// DEFINE_BPF_ITER_FUNC in kernel/bpf/task_iter.c.
const function = "bpf_iter_task_file"

// load returns the verified program. Where the fast way fails it takes the
// loader's own, which is slower, knows more kernels, and says what is wrong.
func load() (*ebpf.Program, error) {
	program, err := loadFast()
	if err == nil || errors.Is(err, unix.EPERM) {
		return program, err
	}
	spec, err := loadOwners()
	if err != nil {
		return nil, err
	}
	return ebpf.NewProgram(spec.Programs[ownersProgOwners])
}

// loadFast loads the program with the few types of the kernel that it names.
func loadFast() (*ebpf.Program, error) {
	raw, release, err := kernelTypes()
	if err != nil {
		return nil, err
	}
	defer release()
	program, target, err := relocated(raw)
	if err != nil {
		return nil, err
	}
	fd, err := progLoad(program, target)
	if err != nil {
		return nil, err
	}
	return ebpf.NewProgramFromFD(fd)
}

// kernelTypes returns the bytes of the kernel's BTF, until release is called.
// Linux 6.16 lets them be mapped; before, they have to be copied.
func kernelTypes() (raw []byte, release func(), _ error) {
	file, err := os.Open("/sys/kernel/btf/vmlinux")
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	raw, err = unix.Mmap(int(file.Fd()), 0, int(stat.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err == nil {
		return raw, func() { unix.Munmap(raw) }, nil
	}
	raw = make([]byte, stat.Size())
	_, err = io.ReadFull(file, raw)
	return raw, func() {}, err
}

// relocated returns the program as it must be for the kernel that raw
// describes, and the ID of the function that it attaches to.
func relocated(raw []byte) (_ *ebpf.ProgramSpec, target uint32, _ error) {
	spec, err := loadOwners()
	if err != nil {
		return nil, 0, err
	}
	names, err := wanted(spec.Types)
	if err != nil {
		return nil, 0, err
	}
	v, err := parse(raw, names, function)
	if err != nil {
		return nil, 0, err
	}
	types, err := lay(v, spec.Types.Copy())
	if err != nil {
		return nil, 0, err
	}
	program := spec.Programs[ownersProgOwners]
	if err := relocate(program.Instructions, program.ByteOrder, types); err != nil {
		return nil, 0, err
	}
	return program, v.function, nil
}

// loadAttr is the part for BPF_PROG_LOAD of union bpf_attr, as far as Linux
// 5.11 knows it. Its pointers take 64 bits on every machine; where ours do not
// the kernel refuses it.
type loadAttr struct {
	progType           uint32
	instructionCount   uint32
	instructions       unsafe.Pointer
	license            unsafe.Pointer
	logLevel           uint32
	logSize            uint32
	logBuffer          uint64
	kernelVersion      uint32
	flags              uint32
	name               [unix.BPF_OBJ_NAME_LEN]byte
	interfaceIndex     uint32
	expectedAttachType uint32
	btf                uint32
	funcInfoSize       uint32
	funcInfo           uint64
	funcInfoCount      uint32
	lineInfoSize       uint32
	lineInfo           uint64
	lineInfoCount      uint32
	attachType         uint32
}

// progLoad has the kernel verify the program.
func progLoad(program *ebpf.ProgramSpec, target uint32) (int, error) {
	var code bytes.Buffer
	if err := program.Instructions.Marshal(&code, program.ByteOrder); err != nil {
		return -1, err
	}
	license := append([]byte(program.License), 0)
	attr := loadAttr{
		progType:           unix.BPF_PROG_TYPE_TRACING,
		instructionCount:   uint32(code.Len() / asm.InstructionSize),
		instructions:       unsafe.Pointer(&code.Bytes()[0]),
		license:            unsafe.Pointer(&license[0]),
		expectedAttachType: unix.BPF_TRACE_ITER,
		attachType:         target,
	}
	copy(attr.name[:], ownersProgOwners)
	var errno unix.Errno
	for range 5 {
		// A signal that comes while the verifier works ends it with EAGAIN.
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EAGAIN {
			break
		}
	}
	return -1, os.NewSyscallError("bpf", errno)
}
