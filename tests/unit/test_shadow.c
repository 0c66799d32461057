/*
 * Shadow spaces where no guest can look: memory slots side by side, memory that is no file or a
 * strange one, hosts that give no room, several VMs, and who gets a space for how long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/mmu/shadow_internal.h"
#include "engine/soft/signals.h"

#define FILE_BYTES 0x400000ul
#define RAM_BYTES  0x200000ul /* of the file, at guest-physical 0 */
#define PML4	   0x2000ul
#define PDPT	   0x3000ul
#define PD	   0x4000ul
#define PT	   0x5000ul
#define CODE	   0x6000ul
#define STACK	   0x8000ul
#define PORT	   0xf1
#define IOPL3	   0x3000
#define SECONDS	   20 /* after which a program that should have ended counts as lost */

/* Bits of page-table entries: present, writable, user, accessed, dirty */
#define READABLE 0x25ull
#define ALL	 0x67ull

/* A program of 64-bit mode at CPL 3 that ends with OUT; RBX, RCX and RAX are the test's. */
#define PROGRAM(name, code)                                                                        \
	extern const u8 name[], name##_end[];                                                      \
	__asm__(".pushsection .rodata\n.code64\n.intel_syntax noprefix\n" #name ":\n" code         \
		"\nout 0xf1, al\n" #name "_end:\n.att_syntax\n.popsection")

PROGRAM(load, "mov rax, [rbx]; mov rax, [rcx]");
PROGRAM(touch, "5: mov rax, [rbx]; add rbx, 4096; dec rcx; jnz 5b");
PROGRAM(load_store, "mov rax, [rbx]; mov [rbx], rcx; add qword ptr [rbx], 1");

struct machine {
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	struct soft_vcpu *v;
	u8 *ram;
	int fd;
};

static const struct engine *engine;

/* What the engine does about faults. cmocka has handlers of its own in every test. */
static const int faults[] = {SIGSEGV, SIGBUS};
static struct sigaction handlers[ARRAY_SIZE(faults)];

/* ---- a machine ---- */

static void add_slot(struct machine *m, u32 slot, u64 gpa, u64 size, u64 at)
{
	struct kvm_userspace_memory_region region = {.slot = slot,
						     .guest_phys_addr = gpa,
						     .memory_size = size,
						     .userspace_addr = (u64)m->ram + at};
	assert_int_equal(engine->vm_set_memory(m->vm, &region), 0);
}

static void add_file_slot(struct machine *m, u32 slot, u64 gpa, u64 size, u64 at)
{
	add_slot(m, slot, gpa, size, at);
	assert_int_equal(engine->vm_memory_file(m->vm, slot, m->fd, at), 0);
}

static u64 *word(struct machine *m, u64 at)
{
	return (u64 *)(m->ram + at);
}

/* The first 2 MiB are where they are, for programs too, in small pages. */
static void build_tables(struct machine *m)
{
	*word(m, PML4) = PDPT | ALL;
	*word(m, PDPT) = PD | ALL;
	*word(m, PD) = PT | ALL;
	for (u64 n = 0; n < 512; n++)
		word(m, PT)[n] = n * PAGE_SIZE | ALL;
}

static void enter_program_mode(struct engine_vcpu *vcpu)
{
	struct kvm_sregs sregs;

	engine->vcpu_get_sregs(vcpu, &sregs);
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = 0x2b,
				   .type = 3,
				   .present = 1,
				   .dpl = 3,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	sregs.ss = sregs.ds = sregs.es = data;
	data.type = 11;
	data.db = 0;
	data.l = 1;
	data.selector = 0x33;
	sregs.cs = data;
	sregs.cr0 = 0x80010033;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;
	sregs.efer = 0x500;
	sregs.idt.limit = 0;
	assert_int_equal(engine->vcpu_set_sregs(vcpu, &sregs), 0);
}

/* Memory without slots yet. */
static void open_machine(struct machine *m, bool patience)
{
	struct error err = {""};

	m->vcpu = NULL;
	m->fd = memfd_create("shadow", MFD_CLOEXEC);
	assert_true(m->fd >= 0);
	assert_int_equal(ftruncate(m->fd, FILE_BYTES), 0);
	m->ram = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	assert_true(m->ram != MAP_FAILED);
	assert_int_equal(engine->vm_create(NULL, &m->vm, &err), 0);
	assert_int_equal(engine->vm_set_option(m->vm, "tune", "shadow=on", &err), 0);
	assert_int_equal(
	    engine->vm_set_option(m->vm, "tune", patience ? "patience=on" : "patience=off", &err),
	    0);
	assert_int_equal(engine->vm_set_option(m->vm, "code-cache", "1048576", &err), 0);
	build_tables(m);
}

static void add_vcpu(struct machine *m)
{
	struct error err = {""};

	assert_int_equal(engine->vcpu_create(m->vm, 0, &m->vcpu, &err), 0);
	m->v = container_of(m->vcpu, struct soft_vcpu, base);
	enter_program_mode(m->vcpu);
}

static void make_machine(struct machine *m, bool patience)
{
	open_machine(m, patience);
	add_file_slot(m, 0, 0, RAM_BYTES, 0);
	add_vcpu(m);
}

static void close_machine(struct machine *m)
{
	if (m->vcpu)
		engine->vcpu_destroy(m->vcpu);
	engine->vm_destroy(m->vm);
	munmap(m->ram, FILE_BYTES);
	close(m->fd);
}

/* Runs a program until it ends, or leaves otherwise; the reason. RAX is what it says. */
static u32 run(struct machine *m, const u8 *code, const u8 *end, u64 rbx, u64 rcx, u64 *rax)
{
	struct kvm_regs regs = {
	    .rip = CODE, .rsp = STACK, .rflags = IOPL3 | 2, .rbx = rbx, .rcx = rcx};

	if (memcmp(m->ram + CODE, code, (size_t)(end - code)) != 0) {
		memcpy(m->ram + CODE, code, (size_t)(end - code));
		engine->vm_memory_written(m->vm, CODE, (u64)(end - code));
	}
	assert_int_equal(engine->vcpu_set_regs(m->vcpu, &regs), 0);
	alarm(SECONDS);
	assert_int_equal(engine->vcpu_run(m->vcpu), 0);
	alarm(0);
	engine->vcpu_get_regs(m->vcpu, &regs);
	*rax = regs.rax;
	return m->vcpu->run->exit_reason;
}

#define RUN(m, name, rbx, rcx, rax) run(m, name, name##_end, rbx, rcx, rax)

/* Both loads of a program, and what the second one gives. */
static u64 loaded(struct machine *m, u64 rbx, u64 rcx)
{
	u64 rax;

	assert_int_equal(RUN(m, load, rbx, rcx, &rax), KVM_EXIT_IO);
	return rax;
}

static void needs_engine(void)
{
	struct engine_probe probe;

	engine = engine_by_name("soft");
	engine->probe(NULL, &probe);
	if (!probe.usable || !__builtin_cpu_supports("bmi2"))
		skip();
	for (u32 n = 0; n < ARRAY_SIZE(faults); n++)
		sigaction(faults[n], &handlers[n], NULL);
}

/** Goes on with page tables of their own, @top, for the same pages. */
static void run_program_of(struct machine *m, u64 top)
{
	struct kvm_sregs sregs;
	u64 rax;

	*word(m, top) = PDPT | ALL;
	engine->vcpu_get_sregs(m->vcpu, &sregs);
	sregs.cr3 = top;
	assert_int_equal(engine->vcpu_set_sregs(m->vcpu, &sregs), 0);
	assert_int_equal(RUN(m, touch, CODE, 1, &rax), KVM_EXIT_IO);
}

/* ---- slots ---- */

/* Guest-physical neighbours that are none in the file. */
static void slots_side_by_side(void **state)
{
	struct machine m;

	needs_engine();
	open_machine(&m, false);
	add_file_slot(&m, 0, 0, 0x100000, 0);
	add_file_slot(&m, 1, 0x100000, 0x8000, 0x300000);
	add_vcpu(&m);
	*word(&m, 0x100000) = 1;
	*word(&m, 0xff000) = 2;
	*word(&m, 0x300000) = 3;
	assert_int_equal(loaded(&m, 0xff000, 0x100000), 3);
	/* in one large page too, from above */
	*word(&m, PD) = 0x83 | ALL;
	enter_program_mode(m.vcpu);
	assert_int_equal(loaded(&m, 0x101000, 0x100000), 3);
	assert_int_equal(loaded(&m, 0x100000, 0xff000), 2);
	assert_true(m.v->shadow_on);
	assert_true(m.v->stats.shadow_maps > 0);
	close_machine(&m);
}

static void slot_goes(void **state)
{
	struct machine m;
	u64 rax;

	needs_engine();
	open_machine(&m, false);
	add_file_slot(&m, 0, 0, 0x100000, 0);
	add_file_slot(&m, 1, 0x100000, 0x8000, 0x300000);
	add_vcpu(&m);
	*word(&m, 0x300000) = 3;
	*word(&m, 0x380000) = 4;
	assert_int_equal(loaded(&m, 0x101000, 0x100000), 3);
	struct kvm_userspace_memory_region none = {.slot = 1};
	assert_int_equal(engine->vm_set_memory(m.vm, &none), 0);
	assert_int_equal(RUN(&m, load, 0x6000, 0x100000, &rax), KVM_EXIT_MMIO);
	*(u64 *)m.vcpu->run->mmio.data = 5;
	assert_int_equal(engine->vcpu_run(m.vcpu), 0);
	/* other memory, at first of no file */
	add_slot(&m, 1, 0x100000, 0x8000, 0x380000);
	assert_int_equal(loaded(&m, 0x101000, 0x100000), 4);
	assert_int_equal(engine->vm_memory_file(m.vm, 1, m.fd, 0x380000), 0);
	assert_int_equal(loaded(&m, 0x101000, 0x100000), 4);
	close_machine(&m);
}

/* ---- memory that is no file, or a strange one ---- */

static void store_and_check(struct machine *m)
{
	u64 rax;

	for (u64 at = 0x10000; at < 0x60000; at += PAGE_SIZE) {
		word(m, PT)[at / PAGE_SIZE] = at | (ALL & ~0x40ull); /* not dirty */
		*word(m, at) = at;
	}
	enter_program_mode(m->vcpu);
	for (u64 at = 0x10000; at < 0x60000; at += PAGE_SIZE) {
		assert_int_equal(RUN(m, load_store, at, 7, &rax), KVM_EXIT_IO);
		assert_int_equal(rax, at);
		assert_int_equal(*word(m, at), 8);
		assert_true(word(m, PT)[at / PAGE_SIZE] & 0x40);
	}
}

static void no_file(void **state)
{
	struct machine m;

	needs_engine();
	open_machine(&m, false);
	add_slot(&m, 0, 0, RAM_BYTES, 0);
	add_vcpu(&m);
	store_and_check(&m);
	assert_int_equal(m.v->stats.shadow_maps, 0);
	close_machine(&m);
}

static void ordinary_file(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, false);
	store_and_check(&m);
	assert_true(m.v->stats.shadow_maps > 0);
	assert_int_equal(m.v->stats.shadow_lost, 0);
	close_machine(&m);
}

/* mprotect() refuses. */
static void file_for_reading(void **state)
{
	struct machine m;
	char path[64];

	needs_engine();
	open_machine(&m, false);
	add_slot(&m, 0, 0, RAM_BYTES, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m.fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(engine->vm_memory_file(m.vm, 0, fd, 0), 0);
	add_vcpu(&m);
	store_and_check(&m);
	assert_true(m.v->stats.shadow_lost > 0);
	close_machine(&m);
	close(fd);
}

/* Mapped, but nothing is there: SIGBUS. */
static void file_too_short(void **state)
{
	struct machine m;

	needs_engine();
	open_machine(&m, false);
	add_slot(&m, 0, 0, RAM_BYTES, 0);
	int fd = memfd_create("short", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(engine->vm_memory_file(m.vm, 0, fd, 0), 0);
	add_vcpu(&m);
	store_and_check(&m);
	close_machine(&m);
	close(fd);
}

/* ---- hosts that give no room ---- */

static void limit_address_space(u64 more)
{
	unsigned long pages;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	struct rlimit limit = {pages * PAGE_SIZE + more, RLIM_INFINITY};
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

static void no_room(u64 room)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct machine m;

	open_machine(&m, false);
	add_file_slot(&m, 0, 0, RAM_BYTES, 0);
	limit_address_space(room);
	add_vcpu(&m);
	store_and_check(&m);
	assert_true(m.v->shadow_refused);
	assert_null(m.v->shadow);
	assert_false(m.v->shadow_on);
	close_machine(&m);
	assert_int_equal(setrlimit(RLIMIT_AS, &unlimited), 0);
}

static void no_room_for_table(void **state)
{
	needs_engine();
	no_room(1ull << 30);
}

static void no_room_for_windows(void **state)
{
	needs_engine();
	no_room(SHADOW_TABLE_SPAN + (1ull << 30));
}

/* As many mappings as a process may have. */
static void no_mappings(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, false);
	loaded(&m, 0x7000, 0x7000);
	assert_true(m.v->shadow_on);
	m.v->shadow->mappings = MAPPINGS_MAX - 3;
	store_and_check(&m);
	assert_true(m.v->stats.shadow_lost > 0);
	assert_true(m.v->shadow->mappings <= MAPPINGS_MAX);
	close_machine(&m);
}

/* ---- how many mappings of the host's that makes ---- */

#define FIRST_PAGE 0x80u /* from here on pages show others, up to the end of RAM */
#define PAGES	   (RAM_BYTES / PAGE_SIZE)

/** What the host says: its mappings in the reserved room, which without any is one. */
static u32 host_mappings(const struct machine *m)
{
	const struct shadow *s = m->v->shadow;
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512];
	u32 n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    start < s->reserved + RESERVED_SIZE && end > s->reserved)
			n++;
	fclose(f);
	return n - 1;
}

static void show(struct machine *m, u32 page, u32 frame, u64 bits)
{
	word(m, PT)[page] = frame * PAGE_SIZE | bits;
}

static void touch_pages(struct machine *m, u32 page, u32 pages)
{
	u64 rax;

	assert_int_equal(RUN(m, touch, page * PAGE_SIZE, pages, &rax), KVM_EXIT_IO);
}

/** Changes some pages, flushes them or everything, and uses them. */
static void change_pages(struct machine *m, unsigned *seed)
{
	u32 page = FIRST_PAGE + (u32)rand_r(seed) % (PAGES - FIRST_PAGE - 32);
	u32 frame = FIRST_PAGE + (u32)rand_r(seed) % (PAGES - FIRST_PAGE - 32);
	u32 count = 1 + (u32)rand_r(seed) % 32, kind = (u32)rand_r(seed) % 4;
	bool all = rand_r(seed) % 8 == 0;
	u64 rax;

	for (u32 n = 0; n < count; n++) {
		u64 bits = kind == 0 ? 0 : kind == 1 ? READABLE : kind == 2 ? ALL & ~0x40ull : ALL;
		show(m, page + n, frame + n, bits);
		if (!all)
			shadow_flush_page(m->v, (page + n) * PAGE_SIZE);
	}
	if (all)
		enter_program_mode(m->vcpu);
	if (kind == 0)
		touch_pages(m, 0x10, 1);
	else
		touch_pages(m, page, count);
	if (kind >= 2)
		RUN(m, load_store, (page + count / 2) * PAGE_SIZE, 7, &rax);
}

static void mappings_are_counted(void **state)
{
	struct machine m;
	unsigned seed = 4;

	needs_engine();
	open_machine(&m, false);
	/* pages that follow each other in the guest, not in the file; and memory without a file */
	add_file_slot(&m, 0, 0, 0x140000, 0);
	add_file_slot(&m, 1, 0x140000, 0x60000, 0x340000);
	add_slot(&m, 2, 0x1a0000, 0x60000, 0x1a0000);
	add_vcpu(&m);
	loaded(&m, 0x10000, 0x11000);
	for (u32 n = 0; n < 2000; n++) {
		change_pages(&m, &seed);
		assert_true(m.v->shadow_on);
		assert_int_equal(m.v->shadow->mappings, host_mappings(&m));
	}
	assert_true(m.v->shadow->mappings > 10);
	assert_int_equal(m.v->shadow->mappings, shadow_mappings(m.v->shadow, m.v->shadow->loaded));
	shadow_forget(m.v);
	assert_int_equal(m.v->shadow->mappings, 0);
	assert_int_equal(host_mappings(&m), 0);
	close_machine(&m);
}

/* More are made, in the course of time, than there may be at once. */
static void churn(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, false);
	for (u32 round = 0; m.v->stats.shadow_maps < 2 * MAPPINGS_MAX; round++) {
		u32 page = FIRST_PAGE, step = 2 * (round % 64) + 3; /* no neighbours */
		for (u32 n = 0; n < PAGES - FIRST_PAGE; n++)
			show(&m, page + n, FIRST_PAGE + n * step % (PAGES - FIRST_PAGE), ALL);
		for (u32 n = 0; n < 32; n++)
			shadow_flush_page(m.v, (page + n * 11) * PAGE_SIZE);
		if (round % 2)
			enter_program_mode(m.vcpu);
		touch_pages(&m, page, PAGES - FIRST_PAGE);
	}
	assert_int_equal(m.v->stats.shadow_lost, 0);
	assert_true(m.v->shadow->loaded->logged < 2 * PAGES);
	assert_int_equal(m.v->shadow->mappings, host_mappings(&m));
	close_machine(&m);
}

/* The log is full, but not of pages that are there. */
static void log_of_the_past(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, false);
	loaded(&m, 0x7000, 0x7000);
	for (struct space *space = m.v->shadow->loaded; space->logged < LOG_MAX;)
		space->log[space->logged++] = 0x100000;
	touch_pages(&m, 0x40, 0x40);
	assert_int_equal(m.v->stats.shadow_lost, 0);
	assert_true(m.v->shadow->loaded->logged < PAGES);
	close_machine(&m);
}

/* No room, but programs that wait have some: those that wait the longest give theirs. */
static void room_of_others(void **state)
{
	struct machine m;
	struct space *space[3];

	needs_engine();
	make_machine(&m, false);
	for (u32 n = 0; n < ARRAY_SIZE(space); n++) {
		run_program_of(&m, 0x100000 + n * PAGE_SIZE);
		space[n] = m.v->shadow->loaded;
		touch_pages(&m, 0x40, 0x40);
		assert_true(space[n]->logged >= 0x40);
	}
	m.v->shadow->mappings += MAPPINGS_MAX - 1 - m.v->shadow->mappings;
	touch_pages(&m, 0x90, 1);
	assert_int_equal(m.v->stats.shadow_lost, 0);
	assert_int_equal(space[0]->logged, 0);
	assert_true(space[1]->logged >= 0x40);
	assert_true(space[2]->logged >= 0x41);
	/* what is gone is found again */
	run_program_of(&m, 0x100000);
	touch_pages(&m, 0x40, 0x40);
	assert_true(m.v->shadow_on);
	assert_true(space[0]->logged >= 0x40);
	close_machine(&m);
}

/* ---- several ---- */

static void two_machines(void **state)
{
	struct machine a, b;
	u64 rax;

	needs_engine();
	make_machine(&a, false);
	make_machine(&b, false);
	for (u64 n = 0; n < 20; n++) {
		assert_int_equal(RUN(&a, load_store, 0x10000 + n * PAGE_SIZE, n, &rax),
				 KVM_EXIT_IO);
		assert_int_equal(RUN(&b, load_store, 0x10000 + n * PAGE_SIZE, 100 + n, &rax),
				 KVM_EXIT_IO);
	}
	for (u64 n = 0; n < 20; n++) {
		assert_int_equal(*word(&a, 0x10000 + n * PAGE_SIZE), n + 1);
		assert_int_equal(*word(&b, 0x10000 + n * PAGE_SIZE), n + 101);
	}
	close_machine(&a);
	assert_int_equal(loaded(&b, 0x10000, 0x11000), 102);
	assert_true(b.v->shadow_on);
	close_machine(&b);
}

/* ---- who gets one ---- */

static void tick(struct machine *m)
{
	usleep(1200);
	shadow_tick(m->v);
}

static void promotion(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, true);
	for (u32 n = 0; n < 3; n++) {
		loaded(&m, 0x10000, 0x11000);
		assert_false(m.v->shadow_on);
		tick(&m);
	}
	loaded(&m, 0x10000, 0x11000);
	assert_true(m.v->shadow_on);
	assert_true(m.v->stats.shadow_maps > 0);
	/* It has spent too much: without, and longer so than at first. */
	m.v->shadow->loaded->credit = -(1ll << 60);
	tick(&m);
	assert_int_equal(m.v->stats.shadow_lost, 1);
	for (u32 n = 0; n < 12; n++) {
		loaded(&m, 0x10000, 0x11000);
		assert_false(m.v->shadow_on);
		tick(&m);
	}
	loaded(&m, 0x10000, 0x11000);
	assert_true(m.v->shadow_on);
	close_machine(&m);
}

/* Ticks that come too soon count once. */
static void hasty_ticks(void **state)
{
	struct machine m;

	needs_engine();
	make_machine(&m, true);
	loaded(&m, 0x10000, 0x11000);
	tick(&m);
	m.v->shadow->last_tick = __builtin_ia32_rdtsc();
	for (u32 n = 0; n < 10; n++)
		shadow_tick(m.v);
	assert_true(m.v->shadow->loaded == NULL);
	assert_true(shadow_space(m.v)->ticks < 3);
	close_machine(&m);
}

/* More programs than spaces. */
static void many_programs(void **state)
{
	struct machine m;
	u64 rax;

	needs_engine();
	make_machine(&m, false);
	for (u64 n = 0; n < 3 * SPACES; n++) {
		u64 top = 0x100000 + n * PAGE_SIZE;
		run_program_of(&m, top);
		*word(&m, 0x10000) = n;
		assert_int_equal(RUN(&m, load_store, 0x10000, n, &rax), KVM_EXIT_IO);
		assert_int_equal(rax, n);
		assert_int_equal(*word(&m, 0x10000), n + 1);
		assert_true(m.v->shadow_on);
		assert_true(m.v->shadow->loaded->cr3 == top);
	}
	close_machine(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(slots_side_by_side),
					   cmocka_unit_test(slot_goes),
					   cmocka_unit_test(no_file),
					   cmocka_unit_test(ordinary_file),
					   cmocka_unit_test(file_for_reading),
					   cmocka_unit_test(file_too_short),
					   cmocka_unit_test(no_room_for_table),
					   cmocka_unit_test(no_room_for_windows),
					   cmocka_unit_test(no_mappings),
					   cmocka_unit_test(mappings_are_counted),
					   cmocka_unit_test(churn),
					   cmocka_unit_test(log_of_the_past),
					   cmocka_unit_test(room_of_others),
					   cmocka_unit_test(two_machines),
					   cmocka_unit_test(promotion),
					   cmocka_unit_test(hasty_ticks),
					   cmocka_unit_test(many_programs)};
	struct error err = {""};
	signals_install(&err);
	for (u32 n = 0; n < ARRAY_SIZE(faults); n++)
		sigaction(faults[n], NULL, &handlers[n]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
