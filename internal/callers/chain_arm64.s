#include "textflag.h"

// func chain(into *uintptr, most int) int
TEXT ·chain(SB), NOSPLIT|NOFRAME, $0-24
	MOVD into+0(FP), R0
	MOVD most+8(FP), R1
	MOVD ZR, R2       // so many are found
	MOVD 8(g), R3     // the goroutine begins with the bounds of its stack
	SUB  $16, R3      // the highest place of a frame pointer with its return address
	MOVD RSP, R4
	SUB  $16, R4      // a frame pointer is one word below its frame; each is above the one before
	MOVD R29, R5
next:
	CMP  R1, R2
	BGE  done
	CMP  R4, R5
	BLS  done
	CMP  R3, R5
	BHI  done
	MOVD 8(R5), R6
	CBZ  R6, done
	MOVD R6, (R0)(R2<<3)
	ADD  $1, R2
	MOVD R5, R4
	MOVD (R5), R5
	B    next
done:
	MOVD R2, ret+16(FP)
	RET
