/* VMX's numbers in words: what --trace vmx and the debugger say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/vmx/controls.h"
#include "engine/soft/vmx/fields.h"
#include "engine/vmx_text.h"

static void exits(void **state)
{
	static const struct {
		struct vmx_exit_facts facts;
		const char *text;
	} rows[] = {
	    {{.reason = 0, .interruption = 0x80000b0e, .error = 2, .qualification = 0x1234},
	     "exception or NMI: #PF, error 0x2, address 0x1234"},
	    {{.reason = 0, .interruption = 0x80000306}, "exception or NMI: #UD"},
	    {{.reason = 0, .interruption = 0x80000202}, "exception or NMI: NMI"},
	    {{.reason = 0, .interruption = 0x80000603}, "exception or NMI: #BP"},
	    {{.reason = 0, .interruption = 0x80000301, .qualification = 0x4000},
	     "exception or NMI: #DB, dr6 bits 0x4000"},
	    {{.reason = 1}, "external interrupt"},
	    {{.reason = 1, .interruption = 0x80000020},
	     "external interrupt: external interrupt 0x20"},
	    {{.reason = 9, .qualification = 0xc0000028},
	     "task switch: task gate, TSS selector 0x28"},
	    {{.reason = 10, .rax = 7, .rcx = 1}, "CPUID: leaf 0x7, subleaf 0x1"},
	    {{.reason = 12}, "HLT"},
	    {{.reason = 14, .qualification = 0x7000}, "INVLPG: 0x7000"},
	    {{.reason = 28, .qualification = 0x000}, "control-register access: mov cr0, rax"},
	    {{.reason = 28, .qualification = 0xf13}, "control-register access: mov r15, cr3"},
	    {{.reason = 28, .qualification = 0x20}, "control-register access: clts"},
	    {{.reason = 28, .qualification = 0x80030}, "control-register access: lmsw 0x8"},
	    {{.reason = 29, .qualification = 0x307}, "MOV DR: mov dr7, rbx"},
	    {{.reason = 29, .qualification = 0x316}, "MOV DR: mov rbx, dr6"},
	    {{.reason = 30, .qualification = 0xf10040, .rax = 0x1248},
	     "I/O instruction: out 0xf1, al 0x48"},
	    {{.reason = 30, .qualification = 0x0cf8004b}, "I/O instruction: in 0xcf8, eax"},
	    {{.reason = 30, .qualification = 0x03f80030, .linear = 0x5000},
	     "I/O instruction: rep outs 0x3f8, 1 byte at 0x5000"},
	    {{.reason = 31, .rcx = 0xc0000080}, "RDMSR: 0xc0000080"},
	    {{.reason = 32, .rcx = 0x10, .rdx = 1, .rax = 2}, "WRMSR: 0x10 = 0x100000002"},
	    {{.reason = 33 | REASON_ENTRY_FAILURE}, "entry failure, invalid guest state"},
	    {{.reason = 33 | REASON_ENTRY_FAILURE, .qualification = 4},
	     "entry failure, invalid guest state: VMCS link pointer"},
	    {{.reason = 34 | REASON_ENTRY_FAILURE, .qualification = 2},
	     "entry failure, MSR loading: entry 2 of the area"},
	    {{.reason = 44, .qualification = 0x1300}, "APIC access: write at offset 0x300"},
	    {{.reason = 48, .qualification = 0x182, .physical = 0x8008, .linear = 0x1008},
	     "EPT violation: write of gpa 0x8008 (linear 0x1008), which is not present"},
	    {{.reason = 48, .qualification = 0xab, .physical = 0x3000, .linear = 0x1008},
	     "EPT violation: read, write of gpa 0x3000 by the page walk (linear 0x1008), which is "
	     "r-x"},
	    {{.reason = 48, .qualification = 0x1c, .physical = 0x3000},
	     "EPT violation: fetch of gpa 0x3000, which is rw-"},
	    {{.reason = 49, .physical = 0x3000}, "EPT misconfiguration: gpa 0x3000"},
	    {{.reason = 999}, "reason 999"},
	    {{.reason = UINT32_MAX}, "reason 65535"},
	};

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		char text[256];
		vmx_exit_text(text, sizeof(text), &rows[n].facts);
		assert_string_equal(text, rows[n].text);
	}
}

/* Whatever the numbers are, no more is written than there is room for. */
static void short_and_wild(void **state)
{
	char text[20];

	for (u32 reason = 0; reason < 100; reason++) {
		for (u64 q = 1; q; q <<= 1) {
			struct vmx_exit_facts x = {.reason = reason,
						   .qualification = ~q,
						   .interruption = (u32)~q,
						   .rax = ~0ull,
						   .rcx = ~0ull,
						   .rdx = ~0ull};
			memset(text, '#', sizeof(text));
			vmx_exit_text(text, sizeof(text) - 1, &x);
			assert_true(strlen(text) < sizeof(text) - 1);
			assert_int_equal(text[sizeof(text) - 1], '#');
		}
	}
	for (u32 encoding = 0; encoding < 0x8000; encoding++) {
		vmx_field_text(text, sizeof(text) - 1, encoding, ~0ull);
		assert_true(strlen(text) < sizeof(text) - 1);
		assert_int_equal(text[sizeof(text) - 1], '#');
	}
	vmx_exit_text(NULL, 0, &(struct vmx_exit_facts){.reason = 12});
}

static void field(u32 encoding, u64 value, const char *wanted)
{
	char text[512];

	vmx_field_text(text, sizeof(text), encoding, value);
	assert_string_equal(text, wanted);
}

static void fields(void **state)
{
	field(0x6c16, 0x1000, "");
	field(0x4000, 0x16, "");
	field(0x4000, 0x3f, "external-interrupt exiting, NMI exiting, virtual NMIs");
	field(0x401e, 0x82, "EPT, unrestricted guest");
	field(0x4004, 0x4042, "#DB, #UD, #PF");
	field(0x4016, 0x80000b0e, "#PF");
	field(0x4016, 0x0000000e, "");
	field(0x4400, 7, "VM entry with invalid controls");
	field(0x4400, 0, "");
	field(0x4402, 30, "I/O instruction");
	field(0x4402, 0x80000021, "entry failure, invalid guest state, no entry took place");
	field(0x201a, 0x10005e, "tables at 0x100000, WB, 4 levels, accessed and dirty flags");
	field(0x4816, 0xa09b, "code, 64-bit, DPL 0");
	field(0x4818, 0xc0f3, "data, DPL 3");
	field(0x4820, 0x10000, "unusable");
	field(0x4822, 0x8b, "system, type 11, DPL 0");
	field(0x4824, 3, "blocked by STI, blocked by MOV SS");
	field(0x0810, 0x4161, "RVI 0x61, SVI 0x41");
	field(0x4826, 1, "HLT");
	field(0x4826, 77, "?");
	assert_null(vmx_error_text(0));
	assert_null(vmx_error_text(1000));
	assert_string_equal(vmx_abort_text(4), "an MSR of the host cannot be loaded");
	assert_null(vmx_abort_text(0));
	assert_null(vmx_abort_text(7));
}

static u32 commas(const char *text)
{
	u32 count = 0;

	for (; *text; text++)
		count += *text == ',';
	return count;
}

/* Every control that the soft engine lets a guest choose has a name. */
static void all_controls(void **state)
{
	static const struct {
		enum vmx_field field;
		u64 may, must;
	} rows[] = {
	    {VMX_PIN_CONTROLS, PIN_MAY, PIN_MUST},
	    {VMX_PROCESSOR_CONTROLS, CPU_MAY, CPU_MUST_OLD},
	    {VMX_SECONDARY_CONTROLS, CPU2_MAY, 0},
	    {VMX_EXIT_CONTROLS, EXIT_MAY, EXIT_MUST_OLD},
	    {VMX_ENTRY_CONTROLS, ENTRY_MAY, ENTRY_MUST_OLD},
	    {VMX_VM_FUNCTION_CONTROLS, FUNCTIONS_MAY, 0},
	};

	for (u32 n = 0; n < ARRAY_SIZE(rows); n++) {
		u64 chosen = rows[n].may & ~rows[n].must;
		char text[1024];
		vmx_field_text(text, sizeof(text), vmx_fields[rows[n].field].encoding, chosen);
		assert_int_equal(commas(text) + 1, __builtin_popcountll(chosen));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exits),
	    cmocka_unit_test(short_and_wild),
	    cmocka_unit_test(fields),
	    cmocka_unit_test(all_controls),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
