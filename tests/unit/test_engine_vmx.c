/*
 * VMX where a guest cannot look on: SIPIs that another processor sends, VMX aborts, INIT and RESET.
 * A small hypervisor enters a guest of its own; each stops at an OUT, and the test fills the VMCS
 * in between.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/irqchip/internal.h"
#include "engine/soft/translate/mode.h"
#include "engine/soft/vmx/capabilities.h"

#define RAM_BYTES 0x100000ull
#define TABLES	  0x1000ull /* PML4, PDPT, PD of one 2 MiB page: identity */
#define CODE	  0x10000ull
#define REGIONS	  0x20000ull /* VMXON, VMCS */
#define VMCS	  (REGIONS + PAGE_SIZE)
#define ABORT	  4 /* the VMX-abort indicator in a region */
#define MSRS	  0x30000ull
#define SECONDS	  60 /* for a guest that hangs */

/* Ports that tell where it is */
enum { AT_LOADED = 0x80, AT_REFUSED, AT_EXIT, AT_OFF, IN_GUEST = 0x90 };

struct machine {
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	struct soft_vcpu *v;
	u8 *ram;
};

extern const u8 program[], program_exit[], program_guest[], program_end[];

/* RBX points to the VMXON pointer, the VMCS' is behind it. */
__asm__(".pushsection .rodata\n.intel_syntax noprefix\n"
	"program:\n"
	"vmxon [rbx]\n"
	"vmclear [rbx + 8]\n"
	"vmptrld [rbx + 8]\n"
	"out 0x80, al\n"
	"vmlaunch\n"
	"out 0x81, al\n"
	"program_exit:\n"
	"out 0x82, al\n"
	"vmxoff\n"
	"out 0x83, al\n"
	"program_guest:\n"
	"1: out 0x90, al\n"
	"jmp 1b\n"
	"program_end:\n"
	".att_syntax\n.popsection");

static void set(struct machine *m, enum vmx_field field, u64 value)
{
	m->v->vmx.vmcs.value[field] = value;
}

static u64 get(struct machine *m, enum vmx_field field)
{
	return m->v->vmx.vmcs.value[field];
}

static void expect_port(struct machine *m, u16 port)
{
	struct kvm_run *run = m->vcpu->run;

	assert_int_equal(engine_soft.vcpu_run(m->vcpu), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run->io.port, port);
}

static void set_registers(struct machine *m)
{
	struct kvm_regs regs = {.rip = CODE, .rbx = REGIONS - 16, .rflags = 2};
	struct kvm_sregs s;

	assert_int_equal(engine_soft.vcpu_get_sregs(m->vcpu, &s), 0);
	s.cr0 = CR0_PG | CR0_PE | CR0_NE;
	s.cr3 = TABLES;
	s.cr4 = CR4_PAE | CR4_VMXE;
	s.efer = EFER_LME | EFER_LMA;
	s.cs = (struct kvm_segment){
	    .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s.ss = (struct kvm_segment){
	    .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	assert_int_equal(engine_soft.vcpu_set_sregs(m->vcpu, &s), 0);
	assert_int_equal(engine_soft.vcpu_set_regs(m->vcpu, &regs), 0);
	m->v->msr.feature_control = 5; /* locked, VMX */
}

/* Guest and host are the program as it stands. */
static void fill_vmcs(struct machine *m)
{
	struct soft_vcpu *v = m->v;

	set(m, VMX_PIN_CONTROLS, PIN_MUST);
	set(m, VMX_PROCESSOR_CONTROLS, CPU_MUST);
	set(m, VMX_EXIT_CONTROLS, EXIT_MUST | EXIT_HOST_64);
	set(m, VMX_ENTRY_CONTROLS, ENTRY_MUST | ENTRY_IA32E);
	set(m, VMX_VMCS_LINK_POINTER, ~0ull);
	set(m, VMX_GUEST_CR0, v->cr0);
	set(m, VMX_HOST_CR0, v->cr0);
	set(m, VMX_GUEST_CR3, v->cr3);
	set(m, VMX_HOST_CR3, v->cr3);
	set(m, VMX_GUEST_CR4, v->cr4);
	set(m, VMX_HOST_CR4, v->cr4);
	set(m, VMX_GUEST_RFLAGS, 2);
	set(m, VMX_GUEST_DR7, 0x400);
	for (u32 n = 0; n < 6; n++) {
		set(m, VMX_GUEST_ES_SELECTOR + n, 0x10);
		set(m, VMX_GUEST_ES_LIMIT + n, 0xffffffff);
		set(m, VMX_GUEST_ES_ACCESS + n, 0xc093);
		set(m, VMX_HOST_ES_SELECTOR + n, 0x10);
	}
	set(m, VMX_GUEST_CS_ACCESS, 0xa09b);
	set(m, VMX_GUEST_LDTR_ACCESS, SEG_UNUSABLE);
	set(m, VMX_GUEST_TR_LIMIT, 0x67);
	set(m, VMX_GUEST_TR_ACCESS, 0x8b);
	set(m, VMX_HOST_TR_SELECTOR, 0x40);
	set(m, VMX_GUEST_RIP, CODE + (u64)(program_guest - program));
	set(m, VMX_HOST_RIP, CODE + (u64)(program_exit - program));
}

static int setup(void **state)
{
	static struct machine m;
	struct error err = {0};
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	const u32 revision = VMCS_REVISION;
	const u64 pointers[2] = {REGIONS, VMCS};
	u64 *table;

	m.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m.ram, MAP_FAILED);
	table = (u64 *)(m.ram + TABLES);
	table[0] = (TABLES + PAGE_SIZE) | 3;
	table[512] = (TABLES + 2 * PAGE_SIZE) | 3;
	table[1024] = 0x83;
	memcpy(m.ram + CODE, program, (size_t)(program_end - program));
	memcpy(m.ram + REGIONS, &revision, sizeof(revision));
	memcpy(m.ram + VMCS, &revision, sizeof(revision));
	memcpy(m.ram + REGIONS - 16, pointers, sizeof(pointers));

	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (u64)m.ram};
	assert_int_equal(engine_soft.vm_create(NULL, &m.vm, &err), 0);
	assert_int_equal(engine_soft.vm_set_option(m.vm, "cpu", "host,+vmx", &err), 0);
	assert_int_equal(engine_soft.vm_create_irqchip(m.vm), 0);
	assert_int_equal(engine_soft.vm_set_memory(m.vm, &region), 0);
	assert_int_equal(engine_soft.vcpu_create(m.vm, 0, &m.vcpu, &err), 0);
	m.v = container_of(m.vcpu, struct soft_vcpu, base);
	cpuid->nent = CPUID_MAX;
	assert_int_equal(engine_soft.vm_get_supported_cpuid(m.vm, cpuid), 0);
	assert_int_equal(engine_soft.vcpu_set_cpuid(m.vcpu, cpuid), 0);
	free(cpuid);
	alarm(SECONDS);
	set_registers(&m);
	expect_port(&m, AT_LOADED);
	fill_vmcs(&m);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	alarm(0);
	engine_soft.vcpu_destroy(m->vcpu);
	engine_soft.vm_destroy(m->vm);
	munmap(m->ram, RAM_BYTES);
	return 0;
}

/* What the tests rely on: in, and out again by an INIT. */
static void test_entry_and_exit(void **state)
{
	struct machine *m = *state;

	expect_port(m, IN_GUEST);
	assert_true(m->v->vmx.nonroot);
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false);
	expect_port(m, AT_EXIT);
	assert_int_equal(get(m, VMX_EXIT_REASON), REASON_INIT);
	expect_port(m, AT_OFF);
	assert_false(m->v->vmx.on);
}

/* ---- waiting for a SIPI: SDM 3C 27.7.2, 28.2.1 ---- */

static void *another_processor(void *opaque)
{
	struct machine *m = opaque;

	while (!atomic_load(&m->v->sleeping))
		sched_yield();
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false); /* held back */
	while (atomic_load(&m->v->attention) || !atomic_load(&m->v->sleeping))
		sched_yield();
	lapic_deliver(m->v->lapic, DELIVER_SIPI, 0x9a, false);
	return NULL;
}

static void test_sipi(void **state)
{
	struct machine *m = *state;
	pthread_t thread;

	set(m, VMX_GUEST_ACTIVITY, ACTIVITY_WAIT_FOR_SIPI);
	lapic_deliver(m->v->lapic, DELIVER_SIPI, 0x55, false); /* nobody waits: lost */
	assert_int_equal(pthread_create(&thread, NULL, another_processor, m), 0);
	expect_port(m, AT_EXIT);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(get(m, VMX_EXIT_REASON), REASON_SIPI);
	assert_int_equal(get(m, VMX_EXIT_QUALIFICATION), 0x9a);
	assert_int_equal(get(m, VMX_GUEST_ACTIVITY), ACTIVITY_WAIT_FOR_SIPI);
}

/* A running guest has no use for one. */
static void test_sipi_to_runner(void **state)
{
	struct machine *m = *state;

	expect_port(m, IN_GUEST);
	lapic_deliver(m->v->lapic, DELIVER_SIPI, 0x55, false);
	expect_port(m, IN_GUEST);
	expect_port(m, IN_GUEST);
}

/* ---- VMX aborts: SDM 3C 28.7 ---- */

static void expect_abort(struct machine *m, u32 reason)
{
	struct engine_vmx vmx;
	u32 indicator;

	expect_port(m, IN_GUEST);
	assert_int_equal(engine_soft.vcpu_get_vmx(m->vcpu, &vmx), 0);
	assert_int_equal(vmx.abort, 0);
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false);
	assert_int_equal(engine_soft.vcpu_run(m->vcpu), 0);
	assert_int_equal(m->vcpu->run->exit_reason, KVM_EXIT_SHUTDOWN);
	memcpy(&indicator, m->ram + VMCS + ABORT, sizeof(indicator));
	assert_int_equal(indicator, reason);
	assert_int_equal(engine_soft.vcpu_get_vmx(m->vcpu, &vmx), 0);
	assert_int_equal(vmx.abort, reason);
	assert_ptr_equal(m->v->mmu, &m->v->mmus[MMU_ROOT]);
	assert_false(m->v->mode & MODE_NONROOT);
}

static void set_msr_entry(struct machine *m, u32 index)
{
	memcpy(m->ram + MSRS, &index, sizeof(index));
}

static void test_abort_saving(void **state)
{
	struct machine *m = *state;

	set_msr_entry(m, 0xdead);
	set(m, VMX_EXIT_MSR_STORE_ADDRESS, MSRS);
	set(m, VMX_EXIT_MSR_STORE_COUNT, 1);
	expect_abort(m, ABORT_SAVE_MSRS);
}

static void test_abort_loading(void **state)
{
	struct machine *m = *state;

	set_msr_entry(m, 0xc0000100); /* FS base: not by a list */
	set(m, VMX_EXIT_MSR_LOAD_ADDRESS, MSRS);
	set(m, VMX_EXIT_MSR_LOAD_COUNT, 1);
	expect_abort(m, ABORT_LOAD_MSRS);
}

/* A host that VM entry would have refused here; a hypervisor with PAE gets there by its tables. */
static void test_abort_pdptes(void **state)
{
	struct machine *m = *state;
	const u64 reserved = 0x1e7;

	expect_port(m, IN_GUEST);
	memcpy(m->ram + MSRS, &reserved, sizeof(reserved));
	set(m, VMX_EXIT_CONTROLS, EXIT_MUST);
	set(m, VMX_HOST_CR3, MSRS);
	expect_abort(m, ABORT_HOST_PDPTES);
}

/* ---- INIT and RESET ---- */

static void expect_reset(struct machine *m)
{
	struct soft_vcpu *v = m->v;

	assert_false(v->vmx.on);
	assert_false(v->vmx.nonroot);
	assert_true(v->vmx.current == VMCS_NONE);
	assert_ptr_equal(v->mmu, &v->mmus[MMU_ROOT]);
	assert_int_equal(v->rip, 0xfff0);
	assert_int_equal(v->cr0 & (CR0_PE | CR0_PG), 0);
	assert_int_equal(v->cr4, 0);
}

/* SDM 3C 24.8: blocked until VMXOFF. */
static void test_init_waits_in_root(void **state)
{
	struct machine *m = *state;

	expect_port(m, IN_GUEST);
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false);
	expect_port(m, AT_EXIT);
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false);
	/* The OUT behind VMXOFF is not reached; and there is no memory at the reset vector. */
	assert_int_equal(engine_soft.vcpu_run(m->vcpu), 0);
	assert_int_equal(m->vcpu->run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
	expect_reset(m);
}

static void test_reset_from_guest(void **state)
{
	struct machine *m = *state;

	expect_port(m, IN_GUEST);
	assert_ptr_equal(m->v->mmu, &m->v->mmus[MMU_NONROOT]);
	vcpu_reset(m->v, false);
	expect_reset(m);
	/* and once more from the beginning */
	set_registers(m);
	expect_port(m, AT_LOADED);
	fill_vmcs(m);
	expect_port(m, IN_GUEST);
}

/* ---- memory that goes away under the regions and the virtual-APIC page ---- */

#define LOST	  (3 * PAGE_SIZE) /* from REGIONS on */
#define LOST_APIC (VMCS + PAGE_SIZE)

static void set_slot(struct machine *m, u32 slot, u64 gpa, u64 size, u32 flags)
{
	struct kvm_userspace_memory_region region = {.slot = slot,
						     .flags = flags,
						     .guest_phys_addr = gpa,
						     .memory_size = size,
						     .userspace_addr = (u64)m->ram + gpa};

	assert_int_equal(engine_soft.vm_set_memory(m->vm, &region), 0);
}

/* The VMCS is what the processor keeps of it; nothing is written to what is gone. */
static void run_without(struct machine *m, bool readonly)
{
	static u8 before[LOST];

	memcpy(before, m->ram + REGIONS, LOST);
	set(m, VMX_PIN_CONTROLS, PIN_MUST | PIN_EXTERNAL_INTERRUPT);
	set(m, VMX_PROCESSOR_CONTROLS, CPU_MUST | CPU_SECONDARY | CPU_TPR_SHADOW);
	set(m, VMX_SECONDARY_CONTROLS, CPU2_APIC_REGISTERS | CPU2_VIRTUAL_INTERRUPTS);
	set(m, VMX_VIRTUAL_APIC_ADDRESS, LOST_APIC);
	set(m, VMX_GUEST_INTERRUPT_STATUS, 0x50);
	set_slot(m, 0, 0, 0, 0);
	set_slot(m, 0, 0, REGIONS, 0);
	set_slot(m, 1, REGIONS + LOST, RAM_BYTES - REGIONS - LOST, 0);
	if (readonly)
		set_slot(m, 2, REGIONS, LOST, KVM_MEM_READONLY);
	expect_port(m, IN_GUEST);
	/* No memory reads as all ones: a priority that nothing is above. */
	assert_int_equal(m->v->vmx.virtual_interrupt, readonly);
	expect_port(m, IN_GUEST);
	lapic_deliver(m->v->lapic, DELIVER_INIT, 0, false);
	expect_port(m, AT_EXIT);
	assert_int_equal(get(m, VMX_EXIT_REASON), REASON_INIT);
	assert_int_equal(get(m, VMX_GUEST_INTERRUPT_STATUS), 0x50);
	expect_port(m, AT_OFF);
	assert_memory_equal(m->ram + REGIONS, before, LOST);
}

static void test_no_memory(void **state)
{
	run_without(*state, false);
}

static void test_readonly_memory(void **state)
{
	run_without(*state, true);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_entry_and_exit),	T(test_sipi),
	    T(test_sipi_to_runner),	T(test_abort_saving),
	    T(test_abort_loading),	T(test_abort_pdptes),
	    T(test_init_waits_in_root), T(test_reset_from_guest),
	    T(test_no_memory),		T(test_readonly_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
