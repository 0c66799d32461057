/*
 * The engine contract, held against every engine that this machine has: the same tests, the same
 * tiny real-mode guests. What a vCPU's state is comes from contract_state.c.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "contract_state.h"
#include "engine_bench.h"

#define MMIO	0xf0000ul /* no memory there */
#define PORT	0xf1
#define SECONDS 20 /* after which a guest that should have come back counts as lost */

/* ---- ports ---- */

GUEST(guest_out, "mov dx, 0xf1; mov al, 'A'; out dx, al; mov ax, 0x1234; out dx, ax;"
		 "mov eax, 0xdeadbeef; out dx, eax; out 0x42, al; hlt; mov al, 7; out dx, al; hlt");

static void test_port_out_and_hlt(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_out);
	expect_out(b, PORT, 1, 'A');
	expect_out(b, PORT, 2, 0x1234);
	expect_out(b, PORT, 4, 0xdeadbeef);
	expect_out(b, 0x42, 1, 0xef);
	expect_hlt(b);
	/* the instruction is complete: running again goes on behind it */
	expect_out(b, PORT, 1, 7);
	expect_hlt(b);
	assert_int_equal(get_regs(b).rip, CODE + (guest_out_end - guest_out));
}

GUEST(guest_in, "mov eax, -1; in al, 0x60; out 0x80, eax; mov dx, 0x1f0; in ax, dx; out 0x80, eax;"
		"in eax, dx; out 0x80, eax; hlt");

static void test_port_in(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_in);
	answer_in(b, 0x60, 1, 0x5a);
	expect_out(b, 0x80, 4, 0xffffff5a);
	answer_in(b, 0x1f0, 2, 0xcafe);
	expect_out(b, 0x80, 4, 0xffffcafe);
	answer_in(b, 0x1f0, 4, 0x01234567);
	expect_out(b, 0x80, 4, 0x01234567);
	expect_hlt(b);
}

GUEST(guest_string, "cld; mov dx, 0xf1; mov si, 0x2000; mov cx, 5; rep outsb;"
		    "mov dx, 0x1f0; mov di, 0x3000; mov cx, 4; rep insw; hlt");

/* An engine may report several elements in one exit or one at a time. */
static void test_port_strings(void **state)
{
	struct bench *b = *state;
	char out[16] = "";
	size_t got = 0;
	u16 next = 0x100;

	LOAD(b, guest_string);
	memcpy(b->ram + 0x2000, "hello", 5);
	while (got < 5) {
		struct kvm_run *run = run_to(b, KVM_EXIT_IO);
		assert_int_equal(run->io.direction, KVM_EXIT_IO_OUT);
		assert_int_equal(run->io.size, 1);
		assert_in_range(run->io.count, 1, 5 - got);
		memcpy(out + got, io_data(run), run->io.count);
		got += run->io.count;
	}
	assert_string_equal(out, "hello");
	for (got = 0; got < 4;) {
		struct kvm_run *run = run_to(b, KVM_EXIT_IO);
		assert_int_equal(run->io.direction, KVM_EXIT_IO_IN);
		assert_int_equal(run->io.size, 2);
		assert_in_range(run->io.count, 1, 4 - got);
		for (u32 i = 0; i < run->io.count; i++, got++, next++)
			memcpy(io_data(run) + 2 * i, &next, 2);
	}
	expect_hlt(b);
	assert_memory_equal(b->ram + 0x3000, ((u16[]){0x100, 0x101, 0x102, 0x103}), 8);
	struct kvm_regs regs = get_regs(b);
	assert_int_equal(regs.rsi & 0xffff, 0x2005);
	assert_int_equal(regs.rdi & 0xffff, 0x3008);
	assert_int_equal(regs.rcx & 0xffff, 0);
}

/* ---- MMIO ---- */

GUEST(guest_mmio, "mov ax, 0xf000; mov es, ax; mov eax, es:[0x10]; out 0x80, eax;"
		  "mov byte ptr es:[0x20], 0x77; add word ptr es:[0x30], 3;"
		  "cld; push es; pop ds; xor ax, ax; mov es, ax; mov si, 0x40; mov di, 0x3000;"
		  "mov cx, 3; rep movsb; hlt");

static void test_mmio(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_mmio);
	answer_mmio(b, MMIO + 0x10, 4, 0x89abcdef);
	expect_out(b, 0x80, 4, 0x89abcdef);
	expect_mmio_write(b, MMIO + 0x20, 1, 0x77);
	answer_mmio(b, MMIO + 0x30, 2, 0x1111);
	expect_mmio_write(b, MMIO + 0x30, 2, 0x1114);
	answer_mmio(b, MMIO + 0x40, 1, 'a');
	answer_mmio(b, MMIO + 0x41, 1, 'b');
	answer_mmio(b, MMIO + 0x42, 1, 'c');
	expect_hlt(b);
	assert_memory_equal(b->ram + 0x3000, "abc", 3);
}

/* ---- kicks ---- */

GUEST(guest_spin, "1: inc ebx; jmp 1b");

static void test_immediate_exit(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_spin);
	b->vcpu->run->immediate_exit = 1;
	assert_int_equal(b->engine->vcpu_run(b->vcpu), -EINTR);
	assert_int_equal(get_regs(b).rip, CODE);
	assert_int_equal(get_regs(b).rbx, 0);
}

/* An answered IN is completed before immediate_exit is honoured. */
static void test_completion_before_immediate_exit(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_in);
	answer_in(b, 0x60, 1, 0x5a);
	b->vcpu->run->immediate_exit = 1;
	assert_int_equal(b->engine->vcpu_run(b->vcpu), -EINTR);
	b->vcpu->run->immediate_exit = 0;
	assert_int_equal(get_regs(b).rax & 0xff, 0x5a);
	assert_int_equal(get_regs(b).rip, CODE + 8); /* behind MOV and IN */
	expect_out(b, 0x80, 4, 0xffffff5a);
}

struct runner {
	struct bench *b;
	sem_t go, back;
	int result;
	bool stop;
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	for (;;) {
		sem_wait(&r->go);
		if (r->stop)
			return NULL;
		r->result = r->b->engine->vcpu_run(r->b->vcpu);
		r->b->vcpu->run->immediate_exit = 0;
		sem_post(&r->back);
	}
}

static void runner_start(struct runner *r, struct bench *b, pthread_t *thread)
{
	*r = (struct runner){.b = b};
	sem_init(&r->go, 0, 0);
	sem_init(&r->back, 0, 0);
	assert_int_equal(pthread_create(thread, NULL, runner_main, r), 0);
}

static void runner_stop(struct runner *r, pthread_t thread)
{
	r->stop = true;
	sem_post(&r->go);
	pthread_join(thread, NULL);
}

static bool runner_is_back(struct runner *r)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SECONDS;
	while (sem_timedwait(&r->back, &until))
		if (errno != EINTR)
			return false;
	return true;
}

GUEST(guest_count, "mov eax, [0x3000]; 1: inc eax; mov [0x3000], eax; jmp 1b");

/* Waits until a guest of that kind has counted on from @from. */
static bool counts_on(const struct bench *b, u32 from)
{
	const volatile u32 *counter = (const volatile u32 *)(b->ram + 0x3000);

	for (u32 ms = 0; *counter == from && ms < SECONDS * 1000; ms++)
		usleep(1000);
	return *counter != from;
}

static void test_kick_from_another_thread(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;
	u32 counter = 0;

	LOAD(b, guest_count);
	runner_start(&r, b, &thread);
	for (int i = 0; i < 3; i++) {
		sem_post(&r.go);
		assert_true(counts_on(b, counter));
		b->engine->vcpu_kick(b->vcpu);
		assert_true(runner_is_back(&r));
		assert_int_equal(r.result, -EINTR);
		assert_in_range(get_regs(b).rip, CODE, CODE + (u64)(guest_count_end - guest_count));
		memcpy(&counter, b->ram + 0x3000, sizeof(counter));
	}
	runner_stop(&r, thread);
}

/* Kicks at every moment around the entry: none is lost, or the guest spins until the deadline. */
static void test_no_kick_is_lost(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;

	LOAD(b, guest_spin);
	runner_start(&r, b, &thread);
	for (int i = 0; i < 100; i++) {
		sem_post(&r.go);
		for (volatile int spin = 0; spin < i * 97 % 20000; spin++)
			;
		b->engine->vcpu_kick(b->vcpu);
		assert_true(runner_is_back(&r));
		assert_int_equal(r.result, -EINTR);
	}
	runner_stop(&r, thread);
}

/* ---- memory slots ---- */

GUEST(guest_slots, "mov ax, 0x2000; mov es, ax; mov al, es:[0]; out 0x80, al;"
		   "mov byte ptr es:[0], 0x99; mov al, es:[0]; out 0x80, al; hlt");

static void test_memory_slots(void **state)
{
	struct bench *b = *state;
	u8 *extra = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {
	    .slot = 1,
	    .guest_phys_addr = 0x20000,
	    .memory_size = 0x2000,
	    .userspace_addr = (uintptr_t)extra,
	};
	struct kvm_userspace_memory_region bad;

	/* refused: misaligned address or size, overlap with slot 0 */
	bad = region;
	bad.guest_phys_addr += 0x800;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EINVAL);
	bad = region;
	bad.memory_size = 0x1800;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EINVAL);
	bad = region;
	bad.guest_phys_addr = 0xf000;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &bad), -EEXIST);

	/* added: memory */
	extra[0] = 0x11;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	LOAD(b, guest_slots);
	expect_out(b, 0x80, 1, 0x11);
	expect_out(b, 0x80, 1, 0x99);
	expect_hlt(b);
	assert_int_equal(extra[0], 0x99);

	/* deleted: MMIO */
	region.memory_size = 0;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	LOAD(b, guest_slots);
	answer_mmio(b, 0x20000, 1, 0x22);
	expect_out(b, 0x80, 1, 0x22);
	expect_mmio_write(b, 0x20000, 1, 0x99);
	answer_mmio(b, 0x20000, 1, 0x33);
	expect_out(b, 0x80, 1, 0x33);
	expect_hlt(b);

	/* read-only: reads are memory, writes are MMIO */
	region.memory_size = 0x2000;
	region.flags = KVM_MEM_READONLY;
	assert_int_equal(b->engine->vm_set_memory(b->vm, &region), 0);
	extra[0] = 0x44;
	LOAD(b, guest_slots);
	expect_out(b, 0x80, 1, 0x44);
	expect_mmio_write(b, 0x20000, 1, 0x99);
	expect_out(b, 0x80, 1, 0x44);
	expect_hlt(b);
	munmap(extra, 0x2000);
}

/* Memory that is a file's; where the engine looks at it, what it is told has to make sense. */
static void test_memory_file(void **state)
{
	struct error err = {0};
	struct bench b = {.engine = bench_engine()};
	bool looks = !strcmp(b.engine->name, "soft");
	int fd = memfd_create("contract", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 2 * RAM_BYTES), 0);
	b.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, RAM_BYTES);
	assert_ptr_not_equal(b.ram, MAP_FAILED);
	must(b.engine->vm_create(bench_device(), &b.vm, &err), &err);
	if (looks)
		assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, 0), -ENOENT);
	add_ram(&b);
	if (looks) {
		assert_int_equal(b.engine->vm_memory_file(b.vm, 1, fd, 0), -ENOENT);
		assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, 0x800), -EINVAL);
	}
	assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, RAM_BYTES), 0);
	/* told anew: the last one counts */
	assert_int_equal(b.engine->vm_memory_file(b.vm, 0, fd, RAM_BYTES), 0);
	must(b.engine->vcpu_create(b.vm, 0, &b.vcpu, &err), &err);
	LOAD(&b, guest_slots);
	answer_mmio(&b, 0x20000, 1, 0x22);
	expect_out(&b, 0x80, 1, 0x22);
	expect_mmio_write(&b, 0x20000, 1, 0x99);
	answer_mmio(&b, 0x20000, 1, 0x33);
	expect_out(&b, 0x80, 1, 0x33);
	expect_hlt(&b);
	close_bench(&b);
	close(fd);
}

/* ---- events ---- */

/* Vector 0x21 (PIC pin 1 after ICW2 = 0x20) and 2 (NMI) lead to handlers that say so. */
GUEST(guest_irq,
      "jmp start\n"
      ".org guest_irq + 0x10\n" /* handler of IRQ 1: say so, end of interrupt */
      "mov al, 0xaa; out 0x80, al; mov al, 0x20; out 0x20, al; iret\n"
      ".org guest_irq + 0x20\n" /* handler of NMI */
      "mov al, 0xbb; out 0x80, al; iret\n"
      "start: mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al\n"
      "mov al, 1; out 0x21, al; mov al, 0xfd; out 0x21, al\n"
      "mov al, 1; out 0x80, al; sti; nop; mov al, 2; out 0x80, al; cli\n"
      "mov al, 3; out 0x80, al; mov al, 4; out 0x80, al\n"
      /* interrupts only in HLT, however late it comes to be executed */
      "1: sti; hlt; cli; mov al, 5; out 0x80, al; jmp 1b");

static void test_irq_line(void **state)
{
	struct bench *b = *state;
	struct runner r;
	pthread_t thread;

	LOAD(b, guest_irq);
	set_vector(b, 0x21, CODE + 0x10);
	expect_out(b, 0x80, 1, 1);
	expect_out(b, 0x80, 1, 2); /* nothing pending */
	expect_out(b, 0x80, 1, 3);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 1) >= 0);
	expect_out(b, 0x80, 1, 4); /* IF is 0 */
	expect_out(b, 0x80, 1, 0xaa);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 0) >= 0);
	expect_out(b, 0x80, 1, 5); /* HLT was the shadow of STI: the interrupt woke it */

	/* an edge wakes a vCPU that sleeps in HLT on another thread */
	runner_start(&r, b, &thread);
	sem_post(&r.go);
	usleep(20000);
	assert_true(b->engine->vm_irq_line(b->vm, 1, 1) >= 0);
	assert_true(runner_is_back(&r));
	assert_int_equal(r.result, 0);
	assert_int_equal(b->vcpu->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(*io_data(b->vcpu->run), 0xaa);

	/* and a kick wakes it, without an instruction being lost */
	sem_post(&r.go);
	assert_true(runner_is_back(&r));
	assert_int_equal(*io_data(b->vcpu->run), 5);
	sem_post(&r.go);
	usleep(20000);
	b->engine->vcpu_kick(b->vcpu);
	assert_true(runner_is_back(&r));
	assert_int_equal(r.result, -EINTR);
	runner_stop(&r, thread);
}

/* Counts its halts at a port. */
GUEST(guest_halts,
      "jmp 2f\n"
      ".org guest_halts + 0x10\n" /* handler of IRQ 1 */
      "push ax; mov al, 0x20; out 0x20, al; pop ax; iret\n"
      "2: mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al\n"
      "mov al, 1; out 0x21, al; mov al, 0xfd; out 0x21, al; mov al, 0\n"
      "1: out 0x80, al; inc al; sti; hlt; cli; jmp 1b");

#define HALTS 20000

struct waker {
	struct bench *b;
	atomic_uint halts; /* that the guest is about to make */
};

/* An interrupt for each halt, not always at the same distance; a kick for a guest that sleeps on.
 */
static void *waker_main(void *arg)
{
	struct waker *w = arg;
	const struct engine *engine = w->b->engine;
	time_t begin = time(NULL);

	for (u32 n = 1; n <= HALTS; n++) {
		while (atomic_load(&w->halts) < n)
			if (time(NULL) - begin > SECONDS) {
				engine->vcpu_kick(w->b->vcpu);
				return NULL;
			}
		for (volatile u32 spin = 0; spin < n * 7 % 1500; spin++)
			;
		engine->vm_irq_line(w->b->vm, 1, 0);
		engine->vm_irq_line(w->b->vm, 1, 1);
	}
	return NULL;
}

/* An interrupt that comes at any moment of a halt ends it, and what the guest does next is done. */
static void test_interrupts_at_halts(void **state)
{
	struct bench *b = *state;
	struct waker w = {.b = b};
	pthread_t thread;

	LOAD(b, guest_halts);
	set_vector(b, 0x21, CODE + 0x10);
	expect_out(b, 0x80, 1, 0);
	assert_int_equal(pthread_create(&thread, NULL, waker_main, &w), 0);
	for (u32 n = 1; n <= HALTS; n++) {
		atomic_store(&w.halts, n);
		expect_out(b, 0x80, 1, (u8)n);
	}
	pthread_join(thread, NULL);
}

static void test_nmi(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_irq);
	set_vector(b, 2, CODE + 0x20);
	expect_out(b, 0x80, 1, 1);
	assert_int_equal(b->engine->vcpu_nmi(b->vcpu), 0);
	expect_out(b, 0x80, 1, 0xbb); /* IF is 0: it does not ask */
	expect_out(b, 0x80, 1, 2);
}

GUEST(guest_interrupt, "mov al, 1; out 0x80, al; sti; 1: jmp 1b\n"
		       ".org guest_interrupt + 0x20\n"
		       "mov al, 0xcc; out 0x80, al; cli; hlt");

/* Without interrupt chips: the monitor waits for the window, then queues a vector. */
static void test_interrupt_window(void **state)
{
	struct bench *b = *state;
	struct kvm_run *run = b->vcpu->run;

	LOAD(b, guest_interrupt);
	set_vector(b, 0x33, CODE + 0x20);
	expect_out(b, 0x80, 1, 1);
	run->request_interrupt_window = 1;
	run_to(b, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_true(run->ready_for_interrupt_injection);
	run->request_interrupt_window = 0;
	assert_int_equal(b->engine->vcpu_interrupt(b->vcpu, 0x33), 0);
	expect_out(b, 0x80, 1, 0xcc);
	expect_hlt(b);
}

static void test_interrupt_needs_no_irqchip(void **state)
{
	struct bench *b = *state;

	assert_int_equal(b->engine->vcpu_interrupt(b->vcpu, 0x33), -ENXIO);
}

static void test_lapic_state(void **state)
{
	struct bench *b = *state;
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	assert_int_equal(b->engine->vcpu_get_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(*(u32 *)(lapic.regs + 0x20) >> 24, 0);	    /* ID */
	assert_int_equal(*(u32 *)(lapic.regs + 0x30) & 0xf0, 0x10); /* version 1x (SDM 3A 10.4.8) */
	*(u32 *)(lapic.regs + 0x80) = 0x30;			    /* TPR */
	assert_int_equal(b->engine->vcpu_set_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(b->engine->vcpu_get_lapic(b->vcpu, &lapic), 0);
	assert_int_equal(*(u32 *)(lapic.regs + 0x80), 0x30);

	assert_int_equal(b->engine->vm_get_irqchip(b->vm, &chip), 0);
	assert_true(chip.chip.ioapic.redirtbl[5].fields.mask);
	chip.chip.ioapic.redirtbl[5].fields.vector = 0x45;
	assert_int_equal(b->engine->vm_set_irqchip(b->vm, &chip), 0);
	chip.chip.ioapic.redirtbl[5].fields.vector = 0;
	assert_int_equal(b->engine->vm_get_irqchip(b->vm, &chip), 0);
	assert_int_equal(chip.chip.ioapic.redirtbl[5].fields.vector, 0x45);
}

static void test_pit_state(void **state)
{
	struct bench *b = *state;
	struct kvm_pit_config config = {0};
	struct kvm_pit_state2 pit;

	assert_int_equal(b->engine->vm_create_pit(b->vm, &config), 0);
	assert_int_equal(b->engine->vm_get_pit(b->vm, &pit), 0);
	pit.channels[2].count = 0x1234;
	pit.channels[2].mode = 3;
	assert_int_equal(b->engine->vm_set_pit(b->vm, &pit), 0);
	memset(&pit, 0, sizeof(pit));
	assert_int_equal(b->engine->vm_get_pit(b->vm, &pit), 0);
	assert_int_equal(pit.channels[2].count, 0x1234);
	assert_int_equal(pit.channels[2].mode, 3);
}

static void test_clock(void **state)
{
	struct bench *b = *state;
	struct kvm_clock_data clock = {.clock = 5000000000};

	assert_int_equal(b->engine->vm_set_clock(b->vm, &clock), 0);
	assert_int_equal(b->engine->vm_get_clock(b->vm, &clock), 0);
	assert_in_range(clock.clock, 5000000000, 5000000000 + SECONDS * 1000000000ull);
}

GUEST(guest_triple_fault, "lidt cs:[0x1000 + 1f - guest_triple_fault]; mov eax, cr0; or al, 1;"
			  "mov cr0, eax; ud2; 1: .word 0, 0, 0");

/* Protected mode with an IDT of no entries: #UD, #GP, #DF and then nothing. */
static void test_triple_fault(void **state)
{
	struct bench *b = *state;

	LOAD(b, guest_triple_fault);
	run_to(b, KVM_EXIT_SHUTDOWN);
}

static void test_two_vms(void **state)
{
	struct bench *b = *state, other = {0};

	open_bench(&other, b->engine, false);
	LOAD(b, guest_out);
	LOAD(&other, guest_in);
	expect_out(b, PORT, 1, 'A');
	answer_in(&other, 0x60, 1, 0x42);
	expect_out(b, PORT, 2, 0x1234);
	expect_out(&other, 0x80, 4, 0xffffff42);
	close_bench(&other);
	expect_out(b, PORT, 4, 0xdeadbeef);
}

static void test_stats(void **state)
{
	struct bench *b = *state;
	struct engine_stats stats = {.exit_io = 100};

	LOAD(b, guest_out);
	for (int i = 0; i < 4; i++)
		run_to(b, KVM_EXIT_IO);
	expect_hlt(b);
	b->engine->vcpu_stats(b->vcpu, &stats);
	assert_int_equal(stats.exit_io, 104); /* added, not set */
	assert_int_equal(stats.exit_hlt, 1);
	assert_int_equal(stats.exits_full, 5);
	assert_true(stats.ns_guest > 0);
}

static void test_vmx_is_told_or_not(void **state)
{
	struct bench *b = *state;
	struct engine_vmx vmx = {.on = true, .eptp = 1, .field_count = 1};
	int ret = b->engine->vcpu_get_vmx(b->vcpu, &vmx);

	if (ret == -EOPNOTSUPP)
		return;
	assert_int_equal(ret, 0);
	assert_false(vmx.on || vmx.nonroot || vmx.eptp || vmx.field_count || *vmx.failure);
	assert_true(vmx.vmcs == ENGINE_VMCS_NONE);
}

/* Whether an engine has interrupt chips: not every driver of KVM's kind does. */
static bool has_irqchip(const struct engine *engine, const char *device)
{
	struct error err = {0};
	struct engine_vm *vm;
	bool has;

	if (engine->vm_create(device, &vm, &err))
		return false;
	has = engine->vm_check_extension(vm, KVM_CAP_IRQCHIP) > 0;
	engine->vm_destroy(vm);
	return has;
}

/* With an argument, that engine only; with a second one, on that device. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    PLAIN(test_port_out_and_hlt),
	    PLAIN(test_port_in),
	    PLAIN(test_port_strings),
	    PLAIN(test_mmio),
	    PLAIN(test_immediate_exit),
	    PLAIN(test_completion_before_immediate_exit),
	    PLAIN(test_kick_from_another_thread),
	    PLAIN(test_no_kick_is_lost),
	    PLAIN(test_memory_slots),
	    cmocka_unit_test(test_memory_file),
	    PLAIN(test_interrupt_window),
	    PLAIN(test_triple_fault),
	    PLAIN(test_two_vms),
	    PLAIN(test_stats),
	    PLAIN(test_vmx_is_told_or_not),
	};
	const struct CMUnitTest irqchip_tests[] = {
	    IRQCHIP(test_irq_line),    IRQCHIP(test_interrupts_at_halts),
	    IRQCHIP(test_nmi),	       IRQCHIP(test_interrupt_needs_no_irqchip),
	    IRQCHIP(test_lapic_state), IRQCHIP(test_pit_state),
	    IRQCHIP(test_clock),
	};
	const char *device = argc > 2 ? argv[2] : NULL;
	int failed = 0, ran = 0;

	for (const struct engine *const *e = engines; *e; e++) {
		struct engine_probe probe;

		if (argc > 1 && strcmp(argv[1], (*e)->name))
			continue;
		(*e)->probe(device, &probe);
		printf("engine %s: %s\n", (*e)->name, probe.reason);
		fflush(stdout);
		if (!probe.usable)
			continue;
		bench_use(*e, device);
		failed += cmocka_run_group_tests_name((*e)->name, tests, NULL, NULL);
		failed += contract_state();
		if (has_irqchip(*e, device))
			failed += cmocka_run_group_tests_name("interrupt chips", irqchip_tests,
							      NULL, NULL);
		ran++;
	}
	return failed ? 1 : ran ? 0 : 77;
}
