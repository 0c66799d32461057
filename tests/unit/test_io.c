/* The replay log of reads and the queue of writes between instructions and the monitor. */
#include "tests/unit/soft_fixture.h"

#include <string.h>

static struct kvm_run *run_page(void)
{
	return fixture->v->base.run;
}

static void *io_data(void)
{
	return (u8 *)run_page() + run_page()->io.data_offset;
}

static u64 read_mmio(u64 gpa, u32 size)
{
	u64 value = 0;

	phys_read(fixture->v, gpa, &value, size);
	return value;
}

static void test_port_read(void **state)
{
	struct soft_vcpu *v = fixture->v;

	assert_int_equal(RUN(port_read(v, 0x3f8, 2)), EXITED);
	assert_int_equal(run_page()->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run_page()->io.direction, KVM_EXIT_IO_IN);
	assert_int_equal(run_page()->io.port, 0x3f8);
	assert_int_equal(run_page()->io.size, 2);
	assert_int_equal(run_page()->io.count, 1);
	*(u64 *)io_data() = 0xffffffffffff5678;
	io_complete_read(v);
	ASSERT_ENDS(assert_int_equal(port_read(v, 0x3f8, 2), 0x5678));
	/* The log is used up: the next read leaves again. */
	assert_int_equal(RUN(port_read(v, 0x3f8, 2)), EXITED);
}

/* An instruction with two reads: the first is answered from the log each time. */
static void test_mmio_replay(void **state)
{
	struct soft_vcpu *v = fixture->v;

	assert_int_equal(RUN(read_mmio(NO_RAM + 4, 4)), EXITED);
	assert_int_equal(run_page()->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(run_page()->mmio.phys_addr, NO_RAM + 4);
	assert_int_equal(run_page()->mmio.len, 4);
	assert_int_equal(run_page()->mmio.is_write, 0);
	memcpy(run_page()->mmio.data, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	io_complete_read(v);
	assert_int_equal(RUN(read_mmio(NO_RAM + 4, 4); read_mmio(NO_RAM + 8, 8)), EXITED);
	assert_int_equal(run_page()->mmio.phys_addr, NO_RAM + 8);
	memcpy(run_page()->mmio.data, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	io_complete_read(v);
	v->io_cursor = 0; /* the run loop starts the instruction again */
	ASSERT_ENDS(assert_int_equal(read_mmio(NO_RAM + 4, 4), 0x44332211);
		    assert_int_equal(read_mmio(NO_RAM + 8, 8), 0x8877665544332211));
}

/* A replay that reads something else than before asks the monitor. */
static void test_mismatch(void **state)
{
	struct soft_vcpu *v = fixture->v;

	RUN(read_mmio(NO_RAM, 4));
	io_complete_read(v);
	assert_int_equal(RUN(read_mmio(NO_RAM, 2)), EXITED);
	assert_int_equal(run_page()->mmio.len, 2);
	io_complete_read(v);
	assert_int_equal(v->io_logged, 1);
	ASSERT_ENDS(read_mmio(NO_RAM, 2));
}

/* Unaligned accesses are cut into aligned pieces. */
static void test_pieces(void **state)
{
	static const struct {
		u64 gpa;
		u32 size;
	} pieces[] = {{NO_RAM + 3, 1}, {NO_RAM + 4, 4}, {NO_RAM + 8, 8}, {NO_RAM + 16, 2}};
	struct soft_vcpu *v = fixture->v;
	u8 data[15];

	for (u32 k = 0; k < sizeof(data); k++)
		data[k] = (u8)(k + 1);
	ASSERT_ENDS(phys_write(v, NO_RAM + 3, data, sizeof(data)));
	assert_true(v->attention & ATTENTION_QUEUE);
	u32 done = 0;
	for (u32 k = 0; k < ARRAY_SIZE(pieces); k++) {
		assert_true(io_queue_next(v));
		assert_int_equal(run_page()->exit_reason, KVM_EXIT_MMIO);
		assert_int_equal(run_page()->mmio.is_write, 1);
		assert_int_equal(run_page()->mmio.phys_addr, pieces[k].gpa);
		assert_int_equal(run_page()->mmio.len, pieces[k].size);
		assert_memory_equal(run_page()->mmio.data, data + done, pieces[k].size);
		done += pieces[k].size;
	}
	assert_false(io_queue_next(v));
}

static void test_port_write(void **state)
{
	struct soft_vcpu *v = fixture->v;

	ASSERT_ENDS(port_write(v, 0x80, 1, 0x1234); port_write(v, 0xcf8, 4, 0x80000000));
	assert_true(io_queue_next(v));
	assert_int_equal(run_page()->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run_page()->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(run_page()->io.port, 0x80);
	assert_int_equal(run_page()->io.size, 1);
	assert_int_equal(*(u32 *)io_data(), 0x34);
	assert_true(io_queue_next(v));
	assert_int_equal(run_page()->io.port, 0xcf8);
	assert_int_equal(*(u32 *)io_data(), 0x80000000);
	assert_false(io_queue_next(v));
}

/* Writes that wait go before a read: the instruction starts again after them. */
static void test_write_before_read(void **state)
{
	struct soft_vcpu *v = fixture->v;

	RUN(port_write(v, 0x70, 1, 0x0b));
	v->attention = 0;
	assert_int_equal(RUN(port_read(v, 0x71, 1)), RESUMED);
	assert_true(v->attention & ATTENTION_QUEUE);
	assert_true(io_queue_next(v));
	assert_int_equal(RUN(port_read(v, 0x71, 1)), EXITED);
}

/* Writes to a read-only slot are the monitor's; reads see the memory. */
static void test_read_only_slot(void **state)
{
	struct soft_vcpu *v = fixture->v;
	u32 value = 0x12345678;

	ASSERT_ENDS(phys_write(v, ROM_BASE + 8, &value, 4));
	assert_int_equal(*(u32 *)(fixture->rom + 8), 0);
	assert_true(io_queue_next(v));
	assert_int_equal(run_page()->mmio.phys_addr, ROM_BASE + 8);
	*(u32 *)(fixture->rom + 8) = 0xabcd;
	ASSERT_ENDS(assert_int_equal(read_mmio(ROM_BASE + 8, 4), 0xabcd));
}

/* Hostile sizes do not write beyond log and queue. */
static void test_bounds(void **state)
{
	struct soft_vcpu *v = fixture->v;
	static u8 page[PAGE_SIZE];
	u32 count;

	v->io_logged = IO_LOG_SIZE;
	for (u32 k = 0; k < IO_LOG_SIZE; k++)
		v->io_log[k] = (struct io_access){.addr = NO_RAM, .size = 1};
	ASSERT_ENDS(for (u32 k = 0; k < IO_LOG_SIZE; k++) read_mmio(NO_RAM, 1));
	ASSERT_ENDS(assert_int_equal(read_mmio(NO_RAM, 1), 0xff));
	io_complete_read(v);
	assert_int_equal(v->io_logged, IO_LOG_SIZE);

	ASSERT_ENDS(for (u32 k = 0; k < 3; k++) phys_write(v, NO_RAM, page, sizeof(page)));
	for (count = 0; io_queue_next(v);)
		count++;
	assert_int_equal(count, IO_QUEUE_SIZE - 1);

	/* The monitor's record may say anything. */
	v->io_logged = 0;
	run_page()->exit_reason = KVM_EXIT_MMIO;
	run_page()->mmio.is_write = 0;
	run_page()->mmio.len = 200;
	io_complete_read(v);
	assert_int_equal(v->io_logged, 0);
}

static void test_dirty_log(void **state)
{
	u64 dirty[RAM_SIZE / PAGE_SIZE / 64] = {0};
	u8 byte = 1;

	fixture->vm.slots[0].dirty = dirty;
	ASSERT_ENDS(phys_write(fixture->v, 70 * PAGE_SIZE + 5, &byte, 1));
	assert_int_equal(dirty[0], 0);
	assert_int_equal(dirty[1], BIT(70 - 64));
}

static void test_slots(void **state)
{
	struct soft_vm *vm = &fixture->vm;

	vm->slot_count = 0;
	for (u64 k = 0; k < 7; k++)
		vm->slots[vm->slot_count++] =
		    (struct memslot){.gpa = k << 20, .size = BIT(19), .host = fixture->ram};
	for (u64 k = 0; k < 7; k++) {
		assert_ptr_equal(phys_slot(vm, k << 20), &vm->slots[k]);
		assert_ptr_equal(phys_slot(vm, (k << 20) + BIT(19) - 1), &vm->slots[k]);
		assert_null(phys_slot(vm, (k << 20) + BIT(19)));
	}
	assert_null(phys_slot(vm, ~0ull));
	vm->slot_count = 0;
	vm->slots[0] = (struct memslot){0};
	assert_null(phys_slot(vm, 0));
}

#define T(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_port_read),	    T(test_mmio_replay), T(test_mismatch),
	    T(test_pieces),	    T(test_port_write),	 T(test_write_before_read),
	    T(test_read_only_slot), T(test_bounds),	 T(test_dirty_log),
	    T(test_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
