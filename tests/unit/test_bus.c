/* The bus: who answers, what is split, what nobody claims. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "devices/bus.h"

/* A device that keeps a journal of what reaches it. */
struct probe {
	char journal[512];
};

static u64 probe_read(void *opaque, u64 offset, u32 size)
{
	struct probe *p = opaque;
	size_t used = strlen(p->journal);
	snprintf(p->journal + used, sizeof(p->journal) - used, "r%llx/%u ",
		 (unsigned long long)offset, size);
	return 0x8877665544332211ull >> (offset * 8);
}

static void probe_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct probe *p = opaque;
	size_t used = strlen(p->journal);
	snprintf(p->journal + used, sizeof(p->journal) - used, "w%llx/%u=%llx ",
		 (unsigned long long)offset, size, (unsigned long long)value);
}

static const struct bus_ops bytes_only = {"bytes", BUS_SIZE_1, probe_read, probe_write};
static const struct bus_ops words = {"words", BUS_SIZE_2 | BUS_SIZE_4, probe_read, probe_write};

static int add(struct bus *bus, u64 start, u64 length)
{
	static struct probe probe;
	struct error err;
	return bus_add(bus, start, length, &bytes_only, &probe, &err);
}

static void refuses_overlap(void **state)
{
	struct bus bus = {.name = "test"};
	assert_int_equal(add(&bus, 0x100, 0x10), 0);
	assert_int_equal(add(&bus, 0x110, 0x10), 0);
	assert_int_equal(add(&bus, 0x0f0, 0x10), 0);
	assert_int_equal(add(&bus, 0x100, 0x10), -EEXIST);
	assert_int_equal(add(&bus, 0x0ff, 1), -EEXIST);
	assert_int_equal(add(&bus, 0x11f, 1), -EEXIST);
	assert_int_equal(add(&bus, 0x000, 0x1000), -EEXIST);
	assert_int_equal(add(&bus, 0x0e0, 0x11), -EEXIST);
	assert_int_equal(add(&bus, 0x200, 0), -EINVAL);
	assert_int_equal(add(&bus, UINT64_MAX, 2), -EINVAL);
	assert_int_equal(add(&bus, UINT64_MAX, 1), 0);
	assert_int_equal(bus.count, 4);
	for (u32 i = 1; i < bus.count; i++)
		assert_true(bus.regions[i - 1].start < bus.regions[i].start);
}

static void refuses_too_many(void **state)
{
	struct bus bus = {.name = "test"};
	for (u32 i = 0; i < BUS_REGIONS_MAX; i++)
		assert_int_equal(add(&bus, (BUS_REGIONS_MAX - i) * 2, 1), 0);
	assert_int_equal(add(&bus, 0, 1), -ENOSPC);
}

static void unclaimed_reads_ones(void **state)
{
	struct bus bus = {.name = "test"};
	assert_int_equal(bus_read(&bus, 0, 1), 0xff);
	assert_int_equal(bus_read(&bus, 0xfffe, 2), 0xffff);
	assert_int_equal(bus_read(&bus, UINT64_MAX, 4), 0xffffffff);
	assert_int_equal(bus_read(&bus, 8, 8), UINT64_MAX);
	bus_write(&bus, 0, 0x55, 1);
}

static void splits(void **state)
{
	struct bus bus = {.name = "test"};
	struct probe narrow = {""}, wide = {""};
	struct error err;
	assert_int_equal(bus_add(&bus, 0x60, 2, &bytes_only, &narrow, &err), 0);
	assert_int_equal(bus_add(&bus, 0x70, 8, &words, &wide, &err), 0);

	assert_int_equal(bus_read(&bus, 0x60, 2), 0x2211);
	assert_string_equal(narrow.journal, "r0/1 r1/1 ");
	narrow.journal[0] = '\0';
	assert_int_equal(bus_read(&bus, 0x61, 4), 0xffffff22);
	assert_string_equal(narrow.journal, "r1/1 ");
	narrow.journal[0] = '\0';
	bus_write(&bus, 0x5f, 0xccbbaa99, 4);
	assert_string_equal(narrow.journal, "w0/1=aa w1/1=bb ");

	assert_int_equal(bus_read(&bus, 0x70, 8), 0x8877665544332211ull);
	assert_string_equal(wide.journal, "r0/4 r4/4 ");
	wide.journal[0] = '\0';
	assert_int_equal(bus_read(&bus, 0x70, 1), 0xff); /* no device takes it in bytes */
	assert_string_equal(wide.journal, "");
	assert_int_equal(bus_read(&bus, 0x70, 3), 0xff2211);
	assert_string_equal(wide.journal, "r0/2 ");
	wide.journal[0] = '\0';
	bus_write(&bus, 0x76, 0x12345678, 4); /* half of it beyond the region */
	assert_string_equal(wide.journal, "w6/2=5678 ");
}

static void bad_sizes_reach_nobody(void **state)
{
	struct bus bus = {.name = "test"};
	struct probe p = {""};
	struct error err;
	assert_int_equal(bus_add(&bus, 0, 16, &bytes_only, &p, &err), 0);
	assert_int_equal(bus_read(&bus, 0, 0), UINT64_MAX);
	assert_int_equal(bus_read(&bus, 0, 9), UINT64_MAX);
	bus_write(&bus, 0, 0, 0);
	bus_write(&bus, 0, 0, UINT32_MAX);
	assert_string_equal(p.journal, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(refuses_overlap),	      cmocka_unit_test(refuses_too_many),
	    cmocka_unit_test(unclaimed_reads_ones),   cmocka_unit_test(splits),
	    cmocka_unit_test(bad_sizes_reach_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
