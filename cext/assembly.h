/* What the files of assembly share: macros alone. */
#ifndef XSAVE_ASSEMBLY_H
#define XSAVE_ASSEMBLY_H

#include <stddef.h>

#define TEXT(x) #x
#define OF(x) TEXT(x) /* an operand of the assembly: the macro's value as text */

/* An offset that the assembly has as a number, checked against the structure. */
#define AT(type, member, value) \
    _Static_assert(offsetof(struct type, member) == (value), #type "." #member " is not where the assembly has it")

/* Register numbers for .irp. */
#define N8 "0,1,2,3,4,5,6,7"
#define N16 N8 ",8,9,10,11,12,13,14,15"
#define N32 N16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* The beginning and the end of a function that uses all registers: those of the caller on the stack, in this order. */
#define PUSH(name) "    push %" name "\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %" name ", 0\n"
#define POP(name) "    pop %" name "\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %" name "\n"
#define ENTER                                    \
    "    .cfi_startproc\n"                       \
    "    endbr64\n"                              \
    PUSH("rbx") PUSH("rbp") PUSH("r12") PUSH("r13") PUSH("r14") PUSH("r15")
#define LEAVE                                                        \
    POP("r15") POP("r14") POP("r13") POP("r12") POP("rbp") POP("rbx") \
    "    ret\n"                                                      \
    "    .cfi_endproc\n"

#endif
