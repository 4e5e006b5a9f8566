#include "textflag.h"

// func chain(into *uintptr, most int) int
TEXT ·chain(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ into+0(FP), DI
	MOVQ most+8(FP), CX
	XORQ AX, AX       // so many are found
	MOVQ (TLS), R8    // this goroutine, which begins with the bounds of its stack
	MOVQ 8(R8), R9
	SUBQ $16, R9      // the highest place of a frame pointer with its return address
	MOVQ SP, R8       // every frame is above the one before
	MOVQ BP, BX
next:
	CMPQ AX, CX
	JGE  done
	CMPQ BX, R8
	JLS  done
	CMPQ BX, R9
	JHI  done
	MOVQ 8(BX), DX
	TESTQ DX, DX
	JEQ  done
	MOVQ DX, (DI)(AX*8)
	INCQ AX
	MOVQ BX, R8
	MOVQ (BX), BX
	JMP  next
done:
	MOVQ AX, ret+16(FP)
	RET
