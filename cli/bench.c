/*
 * guise bench exits: what the ways out of a guest cost, on every engine that is usable here. The
 * engines take turns all the time, so that whatever else the host does hits all of them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "cli/cli.h"
#include "engine/engine.h"
#include "host/loop.h"

/* 2 MiB are mapped one to one; of them only the first 64 KiB are RAM. */
#define RAM_BYTES 0x10000ull
#define CODE_GPA  0x1000ull
#define PML4_GPA  0x2000ull
#define PDPT_GPA  0x3000ull
#define PD_GPA	  0x4000ull
#define MMIO_GPA  0x100000ull
#define PORT	  0xf4

#define ROUNDS	    21
#define BATCH	    1000    /* exits between two readings of the clock, at most */
#define BATCH_NS    1000000 /* after which an engine's turn ends early */
#define GUEST_LOOPS 100	    /* instructions measured inside one exit */
#define KICKS	    5	    /* of one turn */
#define CPUID_MAX   256
#define ENGINES_MAX 4

/* Position-independent; RBX points at MMIO. */
#define GUEST(name, text)                                                                          \
	extern const u8 bench_##name[], bench_##name##_end[];                                      \
	__asm__(".pushsection .rodata\n"                                                           \
		"bench_" #name ":\n" text "bench_" #name "_end:\n"                                 \
		".popsection\n")

GUEST(out, "1: out %al, $0xf4\n jmp 1b\n");
GUEST(in, "1: in $0xf4, %al\n jmp 1b\n");
GUEST(store, "1: mov %eax, (%rbx)\n jmp 1b\n");
GUEST(load, "1: mov (%rbx), %eax\n jmp 1b\n");
GUEST(cpuid, "1: mov $100, %esi\n 2: xor %eax, %eax\n push %rbx\n cpuid\n pop %rbx\n"
	     "dec %esi\n jnz 2b\n out %al, $0xf4\n jmp 1b\n");
GUEST(rdmsr, "1: mov $100, %esi\n 2: mov $0x277, %ecx\n rdmsr\n" /* IA32_PAT */
	     "dec %esi\n jnz 2b\n out %al, $0xf4\n jmp 1b\n");
GUEST(spin, "1: jmp 1b\n");

static const struct measure {
	const char *name;
	const u8 *code, *end;
	u32 exit_reason;
	u32 each; /* operations in one exit */
} measures[] = {
    {"port write", bench_out, bench_out_end, KVM_EXIT_IO, 1},
    {"port read", bench_in, bench_in_end, KVM_EXIT_IO, 1},
    {"MMIO write", bench_store, bench_store_end, KVM_EXIT_MMIO, 1},
    {"MMIO read", bench_load, bench_load_end, KVM_EXIT_MMIO, 1},
    {"CPUID", bench_cpuid, bench_cpuid_end, KVM_EXIT_IO, GUEST_LOOPS},
    {"RDMSR", bench_rdmsr, bench_rdmsr_end, KVM_EXIT_IO, GUEST_LOOPS},
    {"kick", bench_spin, bench_spin_end, 0, 1},
};

struct rig {
	const struct engine *engine;
	struct engine_vm *vm;
	struct engine_vcpu *cpu;
	u8 *ram;
	double samples[ARRAY_SIZE(measures)][ROUNDS]; /* ns */
};

/* ---- a guest in long mode ---- */

static void put(struct rig *rig, u64 gpa, u64 entry)
{
	memcpy(rig->ram + gpa, &entry, sizeof(entry));
}

static int set_cpuid(struct rig *rig)
{
	struct kvm_cpuid2 *cpuid =
	    calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = CPUID_MAX;
	int ret = rig->engine->vm_get_supported_cpuid(rig->vm, cpuid);
	if (ret == 0)
		ret = rig->engine->vcpu_set_cpuid(rig->cpu, cpuid);
	free(cpuid);
	return ret;
}

static int set_state(struct rig *rig)
{
	struct kvm_sregs sregs;
	int ret = rig->engine->vcpu_get_sregs(rig->cpu, &sregs);
	if (ret < 0)
		return ret;
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = 0x10,
				   .type = 3, /* read/write, accessed */
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	struct kvm_segment code = data;
	code.selector = 0x08;
	code.type = 11; /* execute/read, accessed */
	code.db = 0;
	code.l = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = 0x80010033; /* PG WP NE ET MP PE */
	sregs.cr3 = PML4_GPA;
	sregs.cr4 = 0x20;   /* PAE */
	sregs.efer = 0x500; /* LMA LME */
	return rig->engine->vcpu_set_sregs(rig->cpu, &sregs);
}

static int start(struct rig *rig, const struct measure *m)
{
	struct kvm_regs regs = {
	    .rip = CODE_GPA, .rbx = MMIO_GPA, .rsp = CODE_GPA, .rflags = 2, .rdx = PORT};
	/* The last exit of the guest before is completed first: it goes with its registers. */
	rig->cpu->run->immediate_exit = 1;
	rig->engine->vcpu_run(rig->cpu);
	rig->cpu->run->immediate_exit = 0;
	memset(rig->ram + CODE_GPA, 0xf4, 256);
	memcpy(rig->ram + CODE_GPA, m->code, (size_t)(m->end - m->code));
	/* What the engine has translated of the last guest goes with the slot. */
	struct kvm_userspace_memory_region region = {.userspace_addr = (uintptr_t)rig->ram};
	int ret = rig->engine->vm_set_memory(rig->vm, &region);
	region.memory_size = RAM_BYTES;
	if (ret == 0)
		ret = rig->engine->vm_set_memory(rig->vm, &region);
	return ret == 0 ? rig->engine->vcpu_set_regs(rig->cpu, &regs) : ret;
}

static void destroy(struct rig *rig)
{
	if (rig->cpu)
		rig->engine->vcpu_destroy(rig->cpu);
	if (rig->vm)
		rig->engine->vm_destroy(rig->vm);
	if (rig->ram)
		munmap(rig->ram, RAM_BYTES);
	rig->cpu = NULL;
	rig->vm = NULL;
	rig->ram = NULL;
}

static int create(struct rig *rig, const struct engine *engine, struct error *err)
{
	*rig = (struct rig){.engine = engine};
	void *ram =
	    mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		return error_errno(err, errno, "no memory for the measurement");
	rig->ram = ram;
	put(rig, PML4_GPA, PDPT_GPA | 3); /* present, writable */
	put(rig, PDPT_GPA, PD_GPA | 3);
	put(rig, PD_GPA, 0x83); /* and 2 MiB */
	int ret = engine->vm_create(NULL, &rig->vm, err);
	if (ret < 0)
		return ret;
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (uintptr_t)rig->ram};
	ret = engine->vm_set_memory(rig->vm, &region);
	if (ret < 0)
		return error_errno(err, -ret, "the measurement's memory is refused");
	ret = engine->vcpu_create(rig->vm, 0, &rig->cpu, err);
	if (ret < 0)
		return ret;
	ret = set_cpuid(rig);
	if (ret == 0)
		ret = set_state(rig);
	return ret < 0 ? error_errno(err, -ret, "the measurement's processor state is refused") : 0;
}

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* Sorts @samples. */
static double median(double *samples, u32 count)
{
	qsort(samples, count, sizeof(*samples), by_value);
	return samples[count / 2];
}

static int run_once(struct rig *rig, const struct measure *m, struct error *err)
{
	int ret = rig->engine->vcpu_run(rig->cpu);
	if (ret < 0)
		return error_errno(err, -ret, "%s: the guest does not run", m->name);
	if (rig->cpu->run->exit_reason != m->exit_reason)
		return error_set(err, EIO, "%s: the guest ended with exit %u", m->name,
				 rig->cpu->run->exit_reason);
	return 0;
}

static int time_exits(struct rig *rig, const struct measure *m, double *ns, struct error *err)
{
	int ret = run_once(rig, m, err); /* translation, page faults */
	if (ret == 0)
		ret = run_once(rig, m, err);
	u64 begin = loop_now(), now = begin;
	u32 count = 0;
	while (ret == 0 && count < BATCH && now < begin + BATCH_NS) {
		for (u32 n = 0; ret == 0 && n < 10; n++, count++)
			ret = run_once(rig, m, err);
		now = loop_now();
	}
	*ns = (double)(now - begin) / count / m->each;
	return ret;
}

/* Kicks the vCPU whenever @armed, noting when. */
struct kicker {
	struct engine_vcpu *cpu;
	_Atomic u64 kicked_at;
	_Atomic bool armed, done;
};

static void *kick(void *opaque)
{
	struct kicker *k = opaque;
	while (!atomic_load(&k->done)) {
		if (!atomic_load(&k->armed))
			continue;
		atomic_store(&k->armed, false);
		for (u64 end = loop_now() + 50000; loop_now() < end;) /* it is running by then */
			;
		atomic_store(&k->kicked_at, loop_now());
		k->cpu->engine->vcpu_kick(k->cpu);
	}
	return NULL;
}

/* From a kick on another thread to the return of vcpu_run(). */
static int time_kicks(struct rig *rig, const struct measure *m, double *ns, struct error *err)
{
	struct kicker k = {.cpu = rig->cpu};
	pthread_t thread;
	double took[KICKS];
	int ret = 0;
	if (pthread_create(&thread, NULL, kick, &k))
		return error_set(err, EAGAIN, "cannot start the thread that kicks");
	for (u32 n = 0; ret == 0 && n < KICKS; n++) {
		rig->cpu->run->immediate_exit = 0;
		atomic_store(&k.armed, true);
		int result = rig->engine->vcpu_run(rig->cpu);
		took[n] = (double)(loop_now() - atomic_load(&k.kicked_at));
		if (result != -EINTR)
			ret = error_set(err, EIO, "%s: the guest ended with result %d", m->name,
					result);
	}
	rig->cpu->run->immediate_exit = 0;
	atomic_store(&k.done, true);
	pthread_join(thread, NULL);
	if (ret == 0)
		*ns = median(took, KICKS);
	return ret;
}

static int measure_all(struct rig *rigs, u32 count, struct error *err)
{
	for (u32 n = 0; n < ARRAY_SIZE(measures); n++) {
		const struct measure *m = &measures[n];
		for (u32 round = 0; round < ROUNDS; round++) {
			for (u32 e = 0; e < count; e++) {
				struct rig *rig = &rigs[e];
				int ret = start(rig, m);
				if (ret < 0)
					return error_errno(err, -ret, "%s: no start", m->name);
				ret = (m->exit_reason ? time_exits : time_kicks)(
				    rig, m, &rig->samples[n][round], err);
				if (ret < 0)
					return ret;
			}
		}
	}
	return 0;
}

static void print(struct rig *rigs, u32 count)
{
	printf("%-20s", "ns, median");
	for (u32 e = 0; e < count; e++)
		printf(" %10s", rigs[e].engine->name);
	putchar('\n');
	for (u32 n = 0; n < ARRAY_SIZE(measures); n++) {
		printf("%-20s", measures[n].name);
		for (u32 e = 0; e < count; e++) {
			printf(" %10.0f", median(rigs[e].samples[n], ROUNDS));
		}
		putchar('\n');
	}
}

static int bench_exits(void)
{
	struct rig *rigs = calloc(ENGINES_MAX, sizeof(*rigs));
	struct error err = {""};
	u32 count = 0;
	int ret = rigs ? 0 : error_set(&err, ENOMEM, "no memory for the measurement");

	for (const struct engine *const *e = engines; ret == 0 && *e && count < ENGINES_MAX; e++) {
		struct engine_probe probe = {.usable = false};
		(*e)->probe(NULL, &probe);
		if (probe.usable)
			ret = create(&rigs[count++], *e, &err);
	}
	if (ret == 0 && count == 0)
		ret = error_set(&err, ENODEV, "no engine is usable here");
	if (ret == 0)
		ret = measure_all(rigs, count, &err);
	if (ret == 0)
		print(rigs, count);
	else
		cli_complain("%s", err.text);
	for (u32 e = 0; e < count; e++)
		destroy(&rigs[e]);
	free(rigs);
	return ret == 0 ? CLI_OK : CLI_HOST_FAILED;
}

int cli_bench(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "exits"))
		return bench_exits();
	if (argc < 2)
		cli_complain("bench what? There is: exits");
	else
		cli_complain("bench has only 'exits', not '%s'", argv[argc > 2 ? 2 : 1]);
	return CLI_HOST_FAILED;
}
