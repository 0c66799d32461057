/*
 * Where the world switch (switch.S) finds what in struct guest_registers; included by assembly,
 * too.
 */
#ifndef GUISE_SWITCH_H
#define GUISE_SWITCH_H

/* General registers by their numbers in instructions (SDM 2A table 2-2), 8 bytes each. */
#define RAX 0
#define RCX 1
#define RDX 2
#define RBX 3
#define RSP 4
#define RBP 5
#define RSI 6
#define RDI 7

#define SWITCH_HOST_RSP (16 * 8)

/* Encodings of VMCS fields (SDM 3D appendix B.4) for assembly; C has them from <asm/vmx.h>. */
#define SWITCH_FIELD_HOST_RSP 0x6c14

#endif
