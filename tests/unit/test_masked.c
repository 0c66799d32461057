/*
 * AVX-512 on memory that is not plain RAM: masked operands, gathers and scatters touch the selected
 * elements of a device's memory, each once, in their order, and no others. Through the engine
 * contract, in 32-bit code without paging; RAM ends where MMIO begins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/x86.h"

#define RAM_BYTES 0x10000u
#define MMIO	  RAM_BYTES
#define CODE	  0x1000u
#define DATA	  0x2000u

/* EBX: 16 bytes below the end of RAM; ESI: the data. Each piece ends with HLT. */
#define PIECE(name, text)                                                                          \
	extern const u8 name##_begin[], name##_end[];                                              \
	__asm__(".pushsection .rodata; .code32; .intel_syntax noprefix\n" #name "_begin:\n" text   \
		"\nhlt\n" #name "_end:\n.att_syntax; .code64; .popsection\n")

PIECE(store, "mov eax, 0x5a; kmovd k1, eax; vmovdqu32 zmm0, [esi]; vmovdqu32 [ebx]{k1}, zmm0");
PIECE(load, "mov eax, 0x5a; kmovd k1, eax; vmovdqu32 zmm0{k1}{z}, [ebx]; vmovdqu32 [esi], zmm0");
PIECE(none, "kxorq k1, k1, k1; vmovdqu8 [ebx + 16]{k1}, zmm0; vpaddd zmm1{k1}, zmm0, [ebx + 16]");
PIECE(compress, "mov eax, 0x8101; kmovd k1, eax; vmovdqu32 zmm0, [esi]; "
		"vpcompressd [ebx + 8]{k1}, zmm0");
PIECE(broadcast, "mov eax, 0x8000; kmovd k1, eax; vpxord zmm0, zmm0, zmm0; "
		 "vpaddd zmm0{k1}, zmm0, [ebx + 16]{1to16}; vmovdqu32 [esi], zmm0");
PIECE(gather, "mov eax, 0xf; kmovd k1, eax; vmovdqu32 zmm1, [esi]; vpxord zmm0, zmm0, zmm0; "
	      "vpgatherdd zmm0{k1}, [ebx + zmm1]; vmovdqu32 [esi], zmm0; kmovd [esi + 64], k1");
PIECE(scatter, "mov eax, 0xf; kmovd k1, eax; vmovdqu32 zmm1, [esi]; vpscatterdd [ebx + zmm1]{k1}, "
	       "zmm1; kmovd [esi + 64], k1");

struct access {
	u32 addr, size;
	bool write;
	u64 value; /* written; or the answer */
};

struct machine {
	const struct engine *engine;
	struct engine_vm *vm;
	struct engine_vcpu *vcpu;
	u8 *ram;
};

static int setup(void **state)
{
	static struct machine m;
	struct error err = {""};
	struct engine_probe probe;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = 0xe7}}};
	struct kvm_sregs s;

	m.engine = engine_by_name("soft");
	m.engine->probe(NULL, &probe);
	if (!probe.usable)
		skip();
	m.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(m.ram != MAP_FAILED);
	assert_int_equal(m.engine->vm_create(NULL, &m.vm, &err), 0);
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
						     .userspace_addr = (u64)m.ram};
	assert_int_equal(m.engine->vm_set_memory(m.vm, &region), 0);
	assert_int_equal(m.engine->vcpu_create(m.vm, 0, &m.vcpu, &err), 0);
	m.engine->vcpu_get_sregs(m.vcpu, &s);
	struct kvm_segment flat = {
	    .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .selector = 16};
	s.ds = s.es = s.ss = s.fs = s.gs = flat;
	flat.type = 11;
	flat.selector = 8;
	s.cs = flat;
	s.cr0 = CR0_PE | CR0_ET | CR0_NE;
	s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	assert_int_equal(m.engine->vcpu_set_sregs(m.vcpu, &s), 0);
	if (m.engine->vcpu_set_xcrs(m.vcpu, &xcrs) < 0)
		skip(); /* no AVX-512 */
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;
	if (!m)
		return 0;
	m->engine->vcpu_destroy(m->vcpu);
	m->engine->vm_destroy(m->vm);
	munmap(m->ram, RAM_BYTES);
	return 0;
}

/* Runs the piece to its HLT; the accesses of MMIO have to be these. */
static void run(struct machine *m, const u8 *begin, const u8 *end, const struct access *accesses,
		u32 count)
{
	struct kvm_regs regs = {
	    .rip = CODE, .rflags = 2, .rbx = MMIO - 16, .rsi = DATA, .rsp = 0x8000};
	struct kvm_run *run = m->vcpu->run;
	u64 value;

	memcpy(m->ram + CODE, begin, (size_t)(end - begin));
	assert_int_equal(m->engine->vcpu_set_regs(m->vcpu, &regs), 0);
	for (u32 n = 0; n < count; n++) {
		const struct access *a = &accesses[n];
		assert_int_equal(m->engine->vcpu_run(m->vcpu), 0);
		assert_int_equal(run->exit_reason, KVM_EXIT_MMIO);
		assert_int_equal(run->mmio.phys_addr, a->addr);
		assert_int_equal(run->mmio.len, a->size);
		assert_int_equal(run->mmio.is_write, a->write);
		value = 0;
		if (a->write)
			memcpy(&value, run->mmio.data, a->size);
		else
			memcpy(run->mmio.data, &a->value, a->size);
		if (a->write)
			assert_int_equal(value, a->value);
	}
	assert_int_equal(m->engine->vcpu_run(m->vcpu), 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_HLT);
}

#define RUN(m, name, ...)                                                                          \
	do {                                                                                       \
		const struct access list_[] = {__VA_ARGS__};                                       \
		run(m, name##_begin, name##_end, list_, ARRAY_SIZE(list_));                        \
	} while (0)

static u32 *data(const struct machine *m)
{
	return (u32 *)(m->ram + DATA);
}

static u32 *end_of_ram(const struct machine *m)
{
	return (u32 *)(m->ram + MMIO - 16);
}

static void fill(struct machine *m)
{
	for (u32 n = 0; n < 16; n++)
		data(m)[n] = 0x100 + n;
	for (u32 n = 0; n < 4; n++)
		end_of_ram(m)[n] = 0x200 + n;
}

/* Elements 1, 3, 4 and 6. */
static void test_store(void **state)
{
	struct machine *m = *state;
	fill(m);
	RUN(m, store, {MMIO, 4, true, 0x104}, {MMIO + 8, 4, true, 0x106});
	assert_int_equal(end_of_ram(m)[0], 0x200);
	assert_int_equal(end_of_ram(m)[1], 0x101);
	assert_int_equal(end_of_ram(m)[2], 0x202);
	assert_int_equal(end_of_ram(m)[3], 0x103);
}

static void test_load(void **state)
{
	static const u32 wanted[16] = {[1] = 0x201, [3] = 0x203, [4] = 0x304, [6] = 0x306};
	struct machine *m = *state;
	fill(m);
	RUN(m, load, {MMIO, 4, false, 0x304}, {MMIO + 8, 4, false, 0x306});
	assert_memory_equal(data(m), wanted, sizeof(wanted));
}

static void test_nothing(void **state)
{
	struct machine *m = *state;
	run(m, none_begin, none_end, NULL, 0);
}

/* Elements 0, 8 and 15, packed: two in RAM, one behind it. */
static void test_compress(void **state)
{
	struct machine *m = *state;
	fill(m);
	RUN(m, compress, {MMIO, 4, true, 0x10f});
	assert_int_equal(end_of_ram(m)[1], 0x201);
	assert_int_equal(end_of_ram(m)[2], 0x100);
	assert_int_equal(end_of_ram(m)[3], 0x108);
}

static void test_broadcast(void **state)
{
	static const u32 wanted[16] = {[15] = 0x77};
	struct machine *m = *state;
	RUN(m, broadcast, {MMIO, 4, false, 0x77});
	assert_memory_equal(data(m), wanted, sizeof(wanted));
}

/* RAM, MMIO, RAM, MMIO: the instruction is begun again for each answer. */
static void test_gather(void **state)
{
	static const u32 wanted[16] = {0x200, 0x301, 0x203, 0x303};
	struct machine *m = *state;
	fill(m);
	memcpy(data(m), (const u32[]){0, 16, 12, 24}, 16);
	RUN(m, gather, {MMIO, 4, false, 0x301}, {MMIO + 8, 4, false, 0x303});
	assert_memory_equal(data(m), wanted, sizeof(wanted));
	assert_int_equal(data(m)[16], 0);
}

static void test_scatter(void **state)
{
	struct machine *m = *state;
	fill(m);
	memcpy(data(m), (const u32[]){0, 16, 12, 24}, 16);
	RUN(m, scatter, {MMIO, 4, true, 16}, {MMIO + 8, 4, true, 24});
	assert_int_equal(end_of_ram(m)[0], 0);
	assert_int_equal(end_of_ram(m)[1], 0x201);
	assert_int_equal(end_of_ram(m)[3], 12);
	assert_int_equal(data(m)[16], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_store),	  TEST(test_load),   TEST(test_nothing), TEST(test_compress),
	    TEST(test_broadcast), TEST(test_gather), TEST(test_scatter),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
