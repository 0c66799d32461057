/* A machine for one wild guest, its watchdog, and what has to hold afterwards. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/wild/wild.h"

#define PAGE	    4096u
#define CANARY_SIZE (4 * PAGE)
#define GUARD_SIZE  (16 * PAGE)
#define AREA_SIZE   (2 * (CANARY_SIZE + GUARD_SIZE) + RAM_SIZE)
#define CANARY	    0xa7

#define GUEST_NS    2000000u	   /* a guest's time until it is kicked */
#define PATIENCE_NS 20000000000ull /* a kick that has not worked after this is lost */
#define EXITS_MAX   300
#define LATE_MAX    1000 /* exits after a kick: what one instruction still has to read and write */

/* ---- chance ---- */

u64 random_next(struct random *r)
{
	u64 z = r->s += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

u32 random_below(struct random *r, u32 bound)
{
	return (u32)((random_next(r) >> 32) * bound >> 32);
}

void random_fill(struct random *r, void *p, size_t bytes)
{
	u8 *out = p;
	for (; bytes >= 8; bytes -= 8, out += 8) {
		u64 value = random_next(r);
		memcpy(out, &value, 8);
	}
	u64 value = random_next(r);
	memcpy(out, &value, bytes);
}

u64 random_edge(struct random *r)
{
	static const u64 edges[] = {
	    0,		0x1000,
	    0x10000,	0x100000,
	    RAM_SIZE,	0x80000000,
	    0xfec00000, 0xfee00000,
	    0xfee01000, 0x100000000,
	    0x100000,	1ull << 31,
	    1ull << 47, 0xffff800000000000,
	    1ull << 52, 1ull << 63,
	    ~0ull,	0xa0000,
	    0xf0000,	STACK_TOP,
	    GDT_GPA,	IDT_GPA,
	    TSS_GPA,	PML4_GPA,
	    PD_GPA,	PT_GPA,
	    0xffffffff,
	};
	u64 edge = edges[random_below(r, ARRAY_SIZE(edges))];
	switch (random_below(r, 4)) {
	case 0:
		return random_next(r) >> random_below(r, 64);
	case 1:
		return random_below(r, RAM_SIZE);
	case 2:
		return edge + random_below(r, 4096);
	default:
		return edge + random_below(r, 40) - 20;
	}
}

/* ---- failure ---- */

_Noreturn void wild_fail(const struct wild *w, const char *format, ...)
{
	va_list args;
	printf("guest %u (%s, mode %d, %s interrupt chips, layout %u): ", w->number, w->name,
	       (int)w->mode, w->irqchip ? "with" : "no", w->layout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_Exit(1);
}

/* ---- watchdog ---- */

static u64 now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static void *watch(void *argument)
{
	struct wild *w = argument;
	struct watchdog *dog = &w->watchdog;
	pthread_mutex_lock(&dog->lock);
	while (!dog->stop) {
		if (!dog->vcpu) {
			pthread_cond_wait(&dog->wake, &dog->lock);
			continue;
		}
		u64 deadline = dog->deadline;
		struct timespec at = {.tv_sec = (long)(deadline / 1000000000),
				      .tv_nsec = (long)(deadline % 1000000000)};
		pthread_cond_timedwait(&dog->wake, &dog->lock, &at);
		if (!dog->vcpu || dog->deadline != deadline || now() < deadline)
			continue;
		if (dog->deadline % 2)
			wild_fail(w, "the kick did not bring vcpu_run() back");
		w->engine->vcpu_kick(dog->vcpu);
		dog->deadline = (now() + PATIENCE_NS) | 1; /* odd: kicked */
	}
	pthread_mutex_unlock(&dog->lock);
	return NULL;
}

static void watchdog_set(struct wild *w, struct engine_vcpu *vcpu)
{
	pthread_mutex_lock(&w->watchdog.lock);
	w->watchdog.vcpu = vcpu;
	w->watchdog.deadline = (now() + GUEST_NS) & ~1ull;
	pthread_cond_signal(&w->watchdog.wake);
	pthread_mutex_unlock(&w->watchdog.lock);
}

int wild_init(struct wild *w)
{
	w->engine = engine_by_name("soft");
	w->fd = memfd_create("wild", MFD_CLOEXEC);
	if (w->fd < 0 || ftruncate(w->fd, AREA_SIZE) < 0)
		return -errno;
	w->area = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	if (w->area == MAP_FAILED)
		return -errno;
	w->ram = w->area + CANARY_SIZE + GUARD_SIZE;
	memset(w->area, CANARY, CANARY_SIZE);
	memset(w->area + AREA_SIZE - CANARY_SIZE, CANARY, CANARY_SIZE);
	if (mprotect(w->area + CANARY_SIZE, GUARD_SIZE, PROT_NONE) < 0 ||
	    mprotect(w->ram + RAM_SIZE, GUARD_SIZE, PROT_NONE) < 0)
		return -errno;
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&w->watchdog.lock, NULL);
	pthread_cond_init(&w->watchdog.wake, &attributes);
	return -pthread_create(&w->watchdog.thread, NULL, watch, w);
}

void wild_destroy(struct wild *w)
{
	pthread_mutex_lock(&w->watchdog.lock);
	w->watchdog.stop = true;
	pthread_cond_signal(&w->watchdog.wake);
	pthread_mutex_unlock(&w->watchdog.lock);
	pthread_join(w->watchdog.thread, NULL);
	munmap(w->area, AREA_SIZE);
	close(w->fd);
}

/* ---- memory ---- */

struct layout_slot {
	u64 gpa, size;
	u64 at; /* offset in RAM */
	u32 flags;
};

/* What the guest finds where. RAM may appear twice, and where interrupt chips are. */
static const struct layout_slot layouts[][4] = {
    {{0, RAM_SIZE, 0, 0}},
    {{0, RAM_SIZE, 0, KVM_MEM_LOG_DIRTY_PAGES}},
    {{0, 0xa0000, 0, 0}, {0x100000, RAM_SIZE - 0x100000, 0x100000, 0}},
    {{0, 0xf0000, 0, 0},
     {0xf0000, 0x10000, 0xf0000, KVM_MEM_READONLY},
     {0x100000, RAM_SIZE - 0x100000, 0x100000, 0},
     {0xffff0000, 0x10000, 0xf0000, KVM_MEM_READONLY}},
    {{0, RAM_SIZE, 0, 0},
     {0xfec00000, 0x1000, 0x10000, 0},
     {0xfee00000, 0x1000, 0, 0},
     {0x100000000, RAM_SIZE, 0, 0}},
    {{0, 0x1000, 0, 0},
     {0x2000, 0x1000, 0x1000, 0},
     {0x4000, RAM_SIZE - 0x4000, 0x4000, 0},
     {0xffffffffff000, 0x1000, 0, 0}},
};

static void set_memory(struct wild *w)
{
	w->layout = one_in(&w->random, 2) ? 0 : random_below(&w->random, ARRAY_SIZE(layouts));
	for (u32 n = 0; n < ARRAY_SIZE(layouts[0]); n++) {
		const struct layout_slot *slot = &layouts[w->layout][n];
		struct kvm_userspace_memory_region region = {
		    .slot = n,
		    .flags = slot->flags,
		    .guest_phys_addr = slot->gpa,
		    .memory_size = slot->size,
		    .userspace_addr = (u64)w->ram + slot->at,
		};
		int r = slot->size ? w->engine->vm_set_memory(w->vm, &region) : 0;
		if (!r && slot->size)
			r = w->engine->vm_memory_file(w->vm, n, w->fd,
						      region.userspace_addr - (u64)w->area);
		if (r < 0)
			wild_fail(w, "memory slot %u refused: %d", n, r);
	}
}

/* ---- the guest's own structures ---- */

static u64 *ram64(struct wild *w, u32 gpa)
{
	return (u64 *)(w->ram + gpa);
}

static void build_tables(struct wild *w)
{
	ram64(w, PML4_GPA)[0] = PDPT_GPA | 7;
	ram64(w, PDPT_GPA)[0] = PD_GPA | 7;
	ram64(w, PDPT_GPA)[3] = 0xc0000000 | 0x87; /* the interrupt chips */
	for (u64 n = 0; n < 4; n++)
		ram64(w, PAE_GPA)[n] = PD_GPA | 1;
	for (u64 n = 0; n < 512; n++) {
		ram64(w, PD_GPA)[n] = n << 21 | 0x87;
		ram64(w, PT_GPA)[n] = n << 12 | 7;
	}
	if (one_in(&w->random, 2))
		ram64(w, PD_GPA)[0] = PT_GPA | 7;
	for (u32 n = 0; n < 1024; n++)
		((u32 *)(w->ram + PD32_GPA))[n] = n << 22 | 0x87;
}

static u64 gate(u32 handler, u16 selector, u8 access)
{
	return (handler & 0xffff) | (u64)selector << 16 | (u64)access << 40 |
	       (u64)(handler >> 16) << 48;
}

static void build_descriptors(struct wild *w)
{
	u64 *gdt = ram64(w, GDT_GPA);
	gdt[SEL_CODE64 / 8] = 0x00af9b000000ffff;
	gdt[SEL_CODE32 / 8] = 0x00cf9b000000ffff;
	gdt[SEL_DATA / 8] = 0x00cf93000000ffff;
	gdt[SEL_CODE16 / 8] = 0x00009b000000ffff;
	gdt[SEL_USER32 / 8] = 0x00cffb000000ffff;
	gdt[SEL_USERD / 8] = 0x00cff3000000ffff;
	gdt[SEL_USER64 / 8] = 0x00affb000000ffff;
	gdt[SEL_TSS / 8] = 0x00008b0000000067 | (u64)TSS_GPA << 16;
	gdt[SEL_TSS2 / 8] = 0x0000890000000067 | (u64)TSS2_GPA << 16;
	gdt[SEL_LDT / 8] = 0x0000820000000fff | (u64)GDT_GPA << 16;
	gdt[SEL_GATE / 8] = gate(0, SEL_TSS2, 0xe5);
	gdt[SEL_CALL / 8] = gate(random_below(&w->random, CODE_SIZE),
				 w->mode == MODE_LONG ? SEL_CODE64 : SEL_CODE32, 0xec);
	for (u32 n = 0; n < 2; n++) {
		u32 *tss = (u32 *)(w->ram + (n ? TSS2_GPA : TSS_GPA));
		for (u32 word = 0; word < 26; word++)
			tss[word] = STACK_TOP - 0x100 * word;
		if (w->mode == MODE_LONG)
			for (u32 word = 0; word < 12; word++)
				*(u64 *)(w->ram + TSS_GPA + 4 + 8 * word) = STACK_TOP;
		tss[2] = SEL_DATA; /* SS0 in the 32-bit form */
		tss[7] = PD32_GPA;
		tss[8] = random_below(&w->random, CODE_SIZE);
		tss[9] = 2;
		tss[18] = tss[20] = tss[21] = tss[22] = tss[23] = SEL_DATA;
		tss[19] = SEL_CODE32;
		tss[24] = 0;
		tss[25] = 0x680000;
	}
}

/* What becomes of exceptions and interrupts. */
static void build_idt(struct wild *w)
{
	bool random_handlers = one_in(&w->random, 2), wide = w->mode == MODE_LONG;
	static const u8 iret[] = {0x48, 0xcf}; /* IRETQ; in 32-bit code DEC EAX, IRET */
	memcpy(w->ram + HANDLER_GPA, iret, sizeof(iret));
	for (u32 n = 0; n < 256; n++) {
		u32 handler = random_handlers ? random_below(&w->random, CODE_SIZE) : HANDLER_GPA;
		u64 *slot = ram64(w, IDT_GPA) + (wide ? 2 * n : n);
		*slot = gate(handler, wide ? SEL_CODE64 : SEL_CODE32,
			     one_in(&w->random, 8) ? 0xef : 0xee);
		if (wide && one_in(&w->random, 16))
			*slot |= (u64)random_below(&w->random, 8) << 32; /* IST */
		if (!wide && one_in(&w->random, 16))
			*slot = gate(0, one_in(&w->random, 2) ? SEL_TSS2 : SEL_TSS, 0xe5);
	}
}

/* ---- the processor at the start ---- */

static struct kvm_segment flat(u16 selector, u8 type, u8 dpl, bool l, bool db)
{
	return (struct kvm_segment){.limit = 0xffffffff,
				    .selector = selector,
				    .type = type,
				    .present = 1,
				    .dpl = dpl,
				    .db = db,
				    .s = 1,
				    .l = l,
				    .g = 1};
}

static void protected_state(struct wild *w)
{
	struct kvm_sregs *s = &w->sregs;
	bool user = w->mode != MODE_PROTECTED && one_in(&w->random, 3), wide = w->mode == MODE_LONG;
	u8 dpl = user ? 3 : 0;
	s->cs = wide ? flat(user ? SEL_USER64 : SEL_CODE64, 11, dpl, true, false)
		     : flat(user ? SEL_USER32 : SEL_CODE32, 11, dpl, false, true);
	s->ss = s->ds = s->es = s->fs = s->gs =
	    flat(user ? SEL_USERD : SEL_DATA, 3, dpl, false, true);
	s->tr = (struct kvm_segment){
	    .base = TSS_GPA, .limit = 0x67, .selector = SEL_TSS, .type = 11, .present = 1};
	s->ldt.unusable = 1;
	s->gdt = (struct kvm_dtable){.base = GDT_GPA, .limit = GDT_LIMIT};
	s->idt = (struct kvm_dtable){.base = IDT_GPA, .limit = wide ? 0xfff : 0x7ff};
	s->cr0 = w->mode == MODE_PROTECTED ? 0x11 : 0x80000011;
	s->cr4 = 0x40600; /* OSXSAVE OSXMMEXCPT OSFXSR */
	switch (w->mode) {
	case MODE_PAGED:
		s->cr3 = PD32_GPA;
		s->cr4 |= 0x10;
		break;
	case MODE_PAE:
		s->cr3 = PAE_GPA;
		s->cr4 |= 0x20;
		break;
	case MODE_LONG:
		s->cr3 = PML4_GPA;
		s->cr4 |= 0x20;
		s->efer = 0xd01;
		break;
	default:
		break;
	}
}

static void v86_state(struct wild *w)
{
	struct kvm_sregs *s = &w->sregs;
	protected_state(w);
	struct kvm_segment segment = {.limit = 0xffff, .type = 3, .present = 1, .dpl = 3, .s = 1};
	s->cs = s->ss = s->ds = s->es = s->fs = s->gs = segment;
	w->regs.rflags |= 0x20000 | random_below(&w->random, 4) << 12;
}

static void initial_state(struct wild *w)
{
	struct random *r = &w->random;
	struct kvm_sregs *s = &w->sregs;
	u64 *regs = (u64 *)&w->regs; /* RAX to R15 come first in struct kvm_regs */
	w->engine->vcpu_get_sregs(w->vcpu, s);
	memset(&w->regs, 0, sizeof(w->regs));
	for (u32 n = 0; n < 16; n++)
		regs[n] = one_in(r, 2) ? random_below(r, RAM_SIZE) : random_edge(r);
	w->regs.rsp = one_in(r, 8) ? random_edge(r) : STACK_TOP;
	w->regs.rflags = 2 | (one_in(r, 3) ? 0x200 : 0) | (one_in(r, 32) ? 0x100 : 0);
	if (w->mode == MODE_REAL) {
		s->cs.base = 0;
		s->cs.selector = 0;
		w->regs.rsp &= 0xffff;
	} else if (w->mode == MODE_V86) {
		v86_state(w);
	} else {
		protected_state(w);
	}
	if (w->mode != MODE_LONG)
		w->regs.rsp = (u32)w->regs.rsp;
}

static void make_vcpu(struct wild *w)
{
	struct error err = {""};
	int r = w->engine->vcpu_create(w->vm, 0, &w->vcpu, &err);
	if (r < 0)
		wild_fail(w, "no vCPU: %s", err.text);
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[100];
	} cpuid = {.head.nent = 100};
	w->engine->vm_get_supported_cpuid(w->vm, &cpuid.head);
	if (w->engine->vcpu_set_cpuid(w->vcpu, &cpuid.head) < 0)
		wild_fail(w, "the supported CPUID is refused");
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = 7}}};
	w->engine->vcpu_set_xcrs(w->vcpu, &xcrs);
}

void wild_create(struct wild *w, u64 seed, u32 number, enum wild_mode mode)
{
	struct error err = {""};
	w->seed = seed;
	w->number = number;
	w->mode = mode;
	w->name = "new";
	w->random.s = seed ^ number * 0x9e3779b97f4a7c15ull;
	memset(w->ram, 0, RAM_SIZE);
	if (w->engine->vm_create(NULL, &w->vm, &err) < 0)
		wild_fail(w, "no VM: %s", err.text);
	set_memory(w);
	w->irqchip = one_in(&w->random, 2);
	struct kvm_pit_config pit = {0};
	if (w->irqchip &&
	    (w->engine->vm_create_irqchip(w->vm) < 0 || w->engine->vm_create_pit(w->vm, &pit) < 0))
		wild_fail(w, "no interrupt chips");
	make_vcpu(w);
	build_tables(w);
	build_descriptors(w);
	if (w->mode != MODE_REAL)
		build_idt(w);
	initial_state(w);
}

/* ---- running ---- */

/* Answers an exit as a monitor without any device would, but with noise. true: the guest goes on.
 */
static bool handle_exit(struct wild *w)
{
	struct kvm_run *run = w->vcpu->run;
	struct random *r = &w->random;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.size != 1 && run->io.size != 2 && run->io.size != 4)
			wild_fail(w, "port access of %u bytes", run->io.size);
		if (run->io.direction == KVM_EXIT_IO_IN)
			random_fill(r, (u8 *)run + run->io.data_offset, run->io.size);
		return true;
	case KVM_EXIT_MMIO:
		if (run->mmio.len == 0 || run->mmio.len > 8)
			wild_fail(w, "MMIO of %u bytes", run->mmio.len);
		if (!run->mmio.is_write)
			random_fill(r, run->mmio.data, run->mmio.len);
		return true;
	case KVM_EXIT_HLT:
	case KVM_EXIT_SHUTDOWN:
	case KVM_EXIT_INTERNAL_ERROR:
		if (one_in(r, 2))
			return false;
		w->engine->vcpu_nmi(w->vcpu);
		return true;
	case KVM_EXIT_DEBUG:
	case KVM_EXIT_FAIL_ENTRY:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SYSTEM_EVENT:
		return false;
	default:
		wild_fail(w, "exit reason %u is not one of the contract", run->exit_reason);
	}
}

void wild_run(struct wild *w)
{
	w->vcpu->run->immediate_exit = 0;
	watchdog_set(w, w->vcpu);
	for (u32 exits = 0;; exits++) {
		int r = w->engine->vcpu_run(w->vcpu);
		if (r == -EINTR || r == -EAGAIN) {
			w->kicks++;
			break;
		}
		if (r != 0)
			wild_fail(w, "vcpu_run() says %d", r);
		w->exits++;
		if (!handle_exit(w))
			break;
		if (exits == EXITS_MAX)
			w->engine->vcpu_kick(w->vcpu);
		if (exits > EXITS_MAX + LATE_MAX)
			wild_fail(w, "%u exits after a kick, the last for reason %u", LATE_MAX,
				  w->vcpu->run->exit_reason);
		if (exits < EXITS_MAX && one_in(&w->random, 16))
			state_disturb(w);
	}
	watchdog_set(w, NULL);
}

void wild_start(struct wild *w)
{
	int r = w->engine->vcpu_set_sregs(w->vcpu, &w->sregs);
	if (r < 0)
		wild_fail(w, "the start's special registers are refused: %d", r);
	r = w->engine->vcpu_set_regs(w->vcpu, &w->regs);
	if (r < 0)
		wild_fail(w, "the start's registers are refused: %d", r);
	wild_run(w);
}

static void check_canary(const struct wild *w, const u8 *p)
{
	for (u32 n = 0; n < CANARY_SIZE; n += 8) {
		u64 value;
		memcpy(&value, p + n, 8);
		if (value != CANARY * 0x0101010101010101ull)
			wild_fail(w, "memory outside the guest changed");
	}
}

void wild_end(struct wild *w)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	w->engine->vcpu_get_regs(w->vcpu, &regs);
	w->engine->vcpu_get_sregs(w->vcpu, &sregs);
	/* What a processor reports is a state that it can be in. */
	int r = w->engine->vcpu_set_sregs(w->vcpu, &sregs);
	if (r < 0)
		wild_fail(w, "the engine refuses the special registers that it reported: %d", r);
	check_canary(w, w->area);
	check_canary(w, w->area + AREA_SIZE - CANARY_SIZE);
	w->engine->vcpu_destroy(w->vcpu);
	w->engine->vm_destroy(w->vm);
}
