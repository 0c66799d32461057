/* The classic demo: real mode, no BIOS, "Hello,world" through port 0xf1. */
	.intel_syntax noprefix
	.code16
	mov	esi, offset text
	mov	ecx, offset end - text
	mov	dx, 0xf1
	cld
	rep outsb
	hlt
text:	.ascii	"Hello,world\n"
end:
