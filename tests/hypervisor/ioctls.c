/*
 * Ioctls of KVM's that Guise's own monitor does not use and others do: lists that are saved and
 * restored, CPUID as it was set, routes of interrupt lines, machine checks, shutdown. By KVM's
 * interface and nothing else.
 *
 * Usage: ioctls DEVICE
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define ENTRIES	    256
#define MCG_CAP	    0x179
#define MCG_CTL	    0x17b
#define MC0_STATUS  0x401
#define MC3_ADDR    0x40e
#define MCG_CTL_P   (1ull << 8)
#define VALID	    (1ull << 63)
#define UNCORRECTED (1ull << 61)
#define ENABLED	    (1ull << 60)
#define LINE	    100 /* beyond the chips' pins */
#define VECTOR	    0x41

#define RFLAGS_FIXED 2ull
#define RFLAGS_IF    (1ull << 9)
#define RFLAGS_VM    (1ull << 17)

static int kvm, vm, vcpu;
static struct kvm_run *run;

static int must(int ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

static void must_fail(int ret, int expected, const char *what)
{
	if (ret >= 0 || errno != expected)
		errx(1, "%s: %s instead of %s", what, ret < 0 ? strerror(errno) : "success",
		     strerror(expected));
}

static void must_exit(uint32_t reason, const char *what)
{
	must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != reason)
		errx(1, "%s: exit reason %u instead of %u", what, run->exit_reason, reason);
}

static int msr(unsigned long command, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = {.head.nmsrs = 1, .entry = {.index = index, .data = *value}};
	int ret = must(ioctl(vcpu, command, &one), "an MSR");

	*value = one.entry.data;
	return ret;
}

/* Every MSR that is listed can be read, and takes what was read. */
static void test_msr_list(void)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 4 * 1024);

	must_fail(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list), E2BIG, "a list without room");
	if (!list->nmsrs || list->nmsrs > 1024)
		errx(1, "%u MSRs", list->nmsrs);
	must(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list), "KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		uint64_t value = 0;

		if (msr(KVM_GET_MSRS, list->indices[i], &value) != 1)
			errx(1, "MSR %#x is listed and cannot be read", list->indices[i]);
		if (msr(KVM_SET_MSRS, list->indices[i], &value) != 1)
			errx(1, "MSR %#x does not take its own value", list->indices[i]);
	}
	free(list);
}

static void test_cpuid(void)
{
	size_t bytes = sizeof(struct kvm_cpuid2) + ENTRIES * sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *set = calloc(1, bytes), *got = calloc(1, bytes);

	set->nent = got->nent = ENTRIES;
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, set), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(vcpu, KVM_SET_CPUID2, set), "KVM_SET_CPUID2");
	must(ioctl(vcpu, KVM_GET_CPUID2, got), "KVM_GET_CPUID2");
	/* KVM of Linux 6.1 leaves the count as it was. */
	if (memcmp(&got->entries[0], &set->entries[0], sizeof(got->entries[0])))
		errx(1, "CPUID is not what was set");
	got->nent = 1;
	must_fail(ioctl(vcpu, KVM_GET_CPUID2, got), E2BIG, "CPUID without room");
	if (must(ioctl(vcpu, KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ") < 1000)
		errx(1, "a TSC of less than a MHz");
	free(set);
	free(got);
}

/* An interrupt that waits in the LAPIC: IRR's bit of @vector. */
static int waits(int vector)
{
	struct kvm_lapic_state lapic;

	must(ioctl(vcpu, KVM_GET_LAPIC, &lapic), "KVM_GET_LAPIC");
	return lapic.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] >> (vector % 8) & 1;
}

static int set_routes(const struct kvm_irq_routing_entry *entries, uint32_t count)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[4];
	} routes = {.head.nr = count};

	memcpy(routes.entries, entries, count * sizeof(entries[0]));
	return ioctl(vm, KVM_SET_GSI_ROUTING, &routes);
}

static void test_routes(void)
{
	const struct kvm_irq_routing_entry good[] = {
	    {.gsi = 0, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_IOAPIC, 2}},
	    {.gsi = 9, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_PIC_SLAVE, 1}},
	    {.gsi = 20, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_IOAPIC, 20}},
	    {.gsi = LINE, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {0xfee00000, 0, VECTOR}},
	};
	struct kvm_irq_level line = {.irq = LINE, .level = 1};
	struct kvm_lapic_state lapic;
	struct kvm_irq_routing_entry bad = good[2];

	/* The LAPIC takes interrupts once software has switched it on. */
	must(ioctl(vcpu, KVM_GET_LAPIC, &lapic), "KVM_GET_LAPIC");
	lapic.regs[0xf1] = 1;
	must(ioctl(vcpu, KVM_SET_LAPIC, &lapic), "KVM_SET_LAPIC");

	must(set_routes(good, 4), "KVM_SET_GSI_ROUTING");
	if (waits(VECTOR))
		errx(1, "an interrupt nobody has sent");
	must(ioctl(vm, KVM_IRQ_LINE_STATUS, &line), "KVM_IRQ_LINE_STATUS");
	if (!waits(VECTOR))
		errx(1, "the line's message has not come");
	bad.u.irqchip.irqchip = 7;
	must_fail(set_routes(&bad, 1), EINVAL, "a chip that is not there");
	bad = good[0];
	bad.type = 77;
	must_fail(set_routes(&bad, 1), EINVAL, "a route to nowhere");
}

static void test_machine_checks(void)
{
	int banks = must(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MCE), "KVM_CAP_MCE");
	struct kvm_x86_mce mce = {
	    .status = VALID | ENABLED, .addr = 0x1234000, .mcg_status = 0, .bank = 3};
	struct kvm_vcpu_events events;
	uint64_t supported, value;

	if (banks < 10)
		errx(1, "%d banks; QEMU wants 10", banks);
	must(ioctl(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, &supported), "supported MCG_CAP");
	if (!(supported & MCG_CTL_P))
		errx(1, "no MCG_CTL: MCG_CAP %#llx", (unsigned long long)supported);
	value = MCG_CTL_P | (uint64_t)(banks + 1);
	must_fail(ioctl(vcpu, KVM_X86_SETUP_MCE, &value), EINVAL, "more banks than there are");
	value = MCG_CTL_P | 10;
	must(ioctl(vcpu, KVM_X86_SETUP_MCE, &value), "KVM_X86_SETUP_MCE");
	if (msr(KVM_GET_MSRS, MCG_CAP, &value) != 1 || (value & 0xff) != 10)
		errx(1, "MCG_CAP is %#llx", (unsigned long long)value);
	value = ~0ull;
	if (msr(KVM_SET_MSRS, MCG_CTL, &value) != 1)
		errx(1, "MCG_CTL cannot be set");

	/* What is corrected is noted; the rest is #MC. */
	must(ioctl(vcpu, KVM_X86_SET_MCE, &mce), "KVM_X86_SET_MCE");
	if (msr(KVM_GET_MSRS, MC3_ADDR, &value) != 1 || value != mce.addr)
		errx(1, "the bank's address is %#llx", (unsigned long long)value);
	must(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events), "KVM_GET_VCPU_EVENTS");
	if (events.exception.injected || events.exception.pending)
		errx(1, "a corrected error raises an exception");
	struct kvm_sregs sregs;

	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cr4 |= 1u << 6; /* MCE */
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	mce.status |= UNCORRECTED;
	mce.mcg_status = 4; /* in progress */
	mce.bank = 0;
	must(ioctl(vcpu, KVM_X86_SET_MCE, &mce), "KVM_X86_SET_MCE");
	if (msr(KVM_GET_MSRS, MC0_STATUS, &value) != 1 || value != mce.status)
		errx(1, "the bank's status is %#llx", (unsigned long long)value);
	must(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events), "KVM_GET_VCPU_EVENTS");
	if (!(events.exception.injected || events.exception.pending) || events.exception.nr != 18)
		errx(1, "no #MC waits");
	mce.bank = 10;
	must_fail(ioctl(vcpu, KVM_X86_SET_MCE, &mce), EINVAL, "a bank that is not there");
}

/* An entry that failed leaves its event to be injected; if the guest shuts down then, that event is
 * over, too. */
static void test_shut_down(void)
{
	struct kvm_x86_mce mce = {.status = VALID | UNCORRECTED | ENABLED};
	struct kvm_regs regs = {.rip = 0x100, .rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_VM};
	struct kvm_interrupt irq = {.irq = VECTOR};
	struct kvm_sregs sregs;
	uint64_t cap = 10;

	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_X86_SETUP_MCE, &cap), "KVM_X86_SETUP_MCE");

	/* Virtual-8086 mode without protected mode. */
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	must(ioctl(vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
	must_exit(KVM_EXIT_FAIL_ENTRY, "an impossible state");
	/* CR4.MCE is off. */
	must(ioctl(vcpu, KVM_X86_SET_MCE, &mce), "KVM_X86_SET_MCE");
	must_exit(KVM_EXIT_SHUTDOWN, "an unexpected machine check");
	regs.rflags &= ~RFLAGS_VM;
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	must_exit(KVM_EXIT_HLT, "the guest after the shutdown");
	must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	if (regs.rip != 0x101)
		errx(1, "an interrupt from before the shutdown: HLT before %#llx", regs.rip);
}

/* A VM without chips and with a page of memory that is all HLTs, and its vCPU, in the place of the
 * others. */
static void make_plain_vm(void)
{
	struct kvm_userspace_memory_region region = {.memory_size = 4096};
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 0xf4, 4096);
	memset((char *)memory + 4 * VECTOR, 2, 2); /* the interrupt leads to 0:0x202 */
	memset((char *)memory + 4 * VECTOR + 2, 0, 2);
	region.userspace_addr = (uintptr_t)memory;
	vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	run = mmap(NULL, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "mmap size"),
		   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap vCPU");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(1, "usage: ioctls DEVICE");
	kvm = must(open(argv[1], O_RDWR | O_CLOEXEC), argv[1]);
	vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	test_cpuid();
	test_msr_list();
	test_routes();
	test_machine_checks();
	make_plain_vm();
	test_shut_down();
	puts("ok ioctls");
	return 0;
}
