"""Flat real-mode guests of a few instructions, assembled when a test wants them."""
import pathlib
import subprocess

# What each guest does is in its name; they start at 0:0 in real mode unless said.
SOURCES = {
    "hello": """
        mov $text, %si
    1:  lodsb
        test %al, %al
        jz 2f
        out %al, $0xf1
        jmp 1b
    2:  hlt
    text: .asciz "Hello,world\\n"
    """,
    "exit_0": "mov $0, %al; out %al, $0xf4; jmp .",
    "exit_7": "mov $7, %eax; out %eax, $0xf4; jmp .",
    # no IDT to deliver #UD, #GP or #DF with; for protected mode, as KVM's real mode knows no limit of the IDT
    "triple_fault": ".code32; lidt empty; ud2; empty: .word 0; .long 0",
    "reset": "mov $'R', %al; out %al, $0xf1; mov $0xfe, %al; out %al, $0x64; jmp .",
    "power_off": "mov $0x604, %dx; mov $0x3400, %ax; out %ax, %dx; jmp .",
    "spin": "mov $'S', %al; out %al, $0xf1; jmp .",
    "many_exits": "mov $1234, %cx; 1: in $0x80, %al; loop 1b; hlt",
    "flood": "mov $'x', %al; 1: out %al, $0xf1; jmp 1b",
    # a line through the serial port, by polling
    "serial": """
        mov $text, %si
    1:  mov $0x3fd, %dx
    2:  in %dx, %al
        test $0x20, %al
        jz 2b
        lodsb
        test %al, %al
        jz 3f
        mov $0x3f8, %dx
        out %al, %dx
        jmp 1b
    3:  hlt
    text: .asciz "through the line\\n"
    """,
    "serial_forever": "mov $0x3f8, %dx; mov $'x', %al; 1: out %al, %dx; jmp 1b",
    # echoes what comes through the serial port; 'q' ends it
    "echo": """
        mov $'>', %al
        out %al, $0xf1
    1:  mov $0x3fd, %dx
    2:  in %dx, %al
        test $0x01, %al
        jz 2b
        mov $0x3f8, %dx
        in %dx, %al
        out %al, %dx
        cmp $'q', %al
        jne 1b
        hlt
    """,
    # unclaimed ports and the odd ones that must read as on a PC
    "ports": """
        mov $1, %bl
        mov $0x3f0, %dx
        in %dx, %al
        cmp $0xff, %al
        jne 1f
        inc %bl
        mov $0xcfc, %dx
        in %dx, %eax
        cmp $0xffffffff, %eax
        jne 1f
        inc %bl
        in $0xe9, %al
        cmp $0xe9, %al
        jne 1f
        mov $0, %bl
    1:  mov %bl, %al
        out %al, $0xf4
        jmp .
    """,
}

# Multiboot kernels, for machines with interrupt chips; protected mode, interrupts off.
KERNELS = {
    "dead": "mov $'D', %al; out %al, $0xf1; 1: hlt; jmp 1b",
    # one that waits, and would for ever: the PICs are masked
    "asleep": "mov $0xff, %al; out %al, $0x21; out %al, $0xa1; mov $'A', %al; out %al, $0xf1; sti; 1: hlt; jmp 1b",
    # the reset register that the FADT names
    "acpi_reset": "mov $'R', %al; out %al, $0xf1; mov $0xcf9, %dx; mov $6, %al; out %al, %dx; jmp .",
    # the devices of --test-device; IRQ 11 and 3 come with the vectors that firmware gives them, 0x73 and 0x0b
    "test_device": """
        lgdt gdt_pointer
        lidt idt_pointer
        ljmp $8, $1f
    1:  mov $16, %eax
        mov %eax, %ds
        mov %eax, %ss
        mov $stack, %esp
        mov $0x12345678, %eax
        out %eax, $0xe0
        in $0xe2, %ax
        cmp $0x1234, %ax
        jne bad
        movl $0x55aa, 0xff000008
        cmpl $0x55aa, 0xff000008
        jne bad
        mov $0x510, %dx
        mov $5, %ax
        out %ax, %dx
        inc %dx
        in %dx, %al
        cmp $1, %al
        jne bad
        mov $slave, %eax
        mov %ax, idt + 0x73 * 8
        mov $master, %eax
        mov %ax, idt + 0x0b * 8
        mov $0x200b, %dx
    pulse:
        mov $1, %al
        out %al, %dx
        mov $0, %al
        out %al, %dx
        sti
        hlt
        jmp bad
    slave:
        mov $'S', %al
        out %al, $0xf1
        mov $0x20, %al
        out %al, $0xa0
        out %al, $0x20
        mov $0x2003, %dx
        jmp pulse
    master:
        mov $'M', %al
        out %al, $0xf1
        mov $0, %al
        out %al, $0xf4
    bad: mov $7, %al
        out %al, $0xf4
        jmp .
        .balign 8
    gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    gdt_pointer: .word 23; .long gdt
    idt_pointer: .word 0x3ff; .long idt
        .balign 8
    idt:
        .rept 128
        .quad 0x00108e0000080000 /* to 0x100000 and what is filled in */
        .endr
        .fill 256
    stack:
    """,
}

MULTIBOOT = """
    .code32
    .globl _start
    .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
_start:
"""


def link(name, directory):
    """Writes the kernel @name to @directory as an ELF file; returns its path."""
    image = pathlib.Path(directory, name + ".elf")
    if not image.exists():
        thing = image.with_suffix(".o")
        subprocess.run(["as", "--32", "-o", thing, "-"], check=True, text=True,
                       input=MULTIBOOT + KERNELS[name] + "\n")
        subprocess.run(["ld", "-m", "elf_i386", "-N", "-Ttext=0x100000", "-o", image, thing],
                       check=True, capture_output=True)
    return str(image)


def assemble(name, directory):
    """Writes the guest @name to @directory; returns its path."""
    image = pathlib.Path(directory, name + ".bin")
    if not image.exists():
        thing = image.with_suffix(".o")
        subprocess.run(["as", "--32", "-o", thing, "-"], check=True, text=True,
                       input=".code16\n.text\n" + SOURCES[name] + "\n")
        # Linked at 0, where it runs.
        subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0", "-e", "0", "--oformat=binary", "-o", image, thing],
                       check=True)
    return str(image)
