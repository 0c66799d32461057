/* Guest memory: the one checked door, at every edge. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "memory/memory.h"

#define GIB (1ull << 30)
#define MIB (1ull << 20)

static struct guest_memory make(u64 size)
{
	struct guest_memory mem;
	struct error err;
	assert_int_equal(guest_memory_create(&mem, size, &err), 0);
	return mem;
}

static void refuses_sizes(void **state)
{
	static const u64 sizes[] = {0, 1, 4095, MIB - 4096, MIB + 1, 1ull << 60, UINT64_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct guest_memory mem;
		struct error err = {""};
		assert_int_equal(guest_memory_create(&mem, sizes[i], &err), -EINVAL);
		assert_true(strlen(err.text) > 0 && !strchr(err.text, '\n'));
		guest_memory_destroy(&mem);
	}
}

static void door_of_small_memory(void **state)
{
	struct guest_memory mem = make(2 * MIB);
	assert_int_equal(mem.range_count, 1);
	assert_ptr_equal(guest_memory_at(&mem, 0, 2 * MIB), mem.base);
	assert_ptr_equal(guest_memory_at(&mem, 2 * MIB - 1, 1), mem.base + 2 * MIB - 1);
	assert_null(guest_memory_at(&mem, 2 * MIB - 1, 2));
	assert_null(guest_memory_at(&mem, 2 * MIB, 1));
	assert_null(guest_memory_at(&mem, 0, 2 * MIB + 1));
	assert_null(guest_memory_at(&mem, UINT64_MAX, 1));
	assert_null(guest_memory_at(&mem, UINT64_MAX, 2));
	assert_null(guest_memory_at(&mem, 1, UINT64_MAX));
	guest_memory_destroy(&mem);
}

static void hole_below_4g(void **state)
{
	struct guest_memory mem = make(4 * GIB);
	assert_int_equal(mem.range_count, 2);
	assert_int_equal(mem.ranges[0].size, 3 * GIB);
	assert_int_equal(mem.ranges[1].gpa, 4 * GIB);
	assert_int_equal(mem.ranges[1].size, GIB);
	assert_non_null(guest_memory_at(&mem, 3 * GIB - 1, 1));
	assert_null(guest_memory_at(&mem, 3 * GIB - 1, 2));
	assert_null(guest_memory_at(&mem, 3 * GIB, 1));
	assert_null(guest_memory_at(&mem, 4 * GIB - 1, 1));
	assert_null(guest_memory_at(&mem, 4 * GIB - 1, 2));
	assert_ptr_equal(guest_memory_at(&mem, 4 * GIB, GIB), mem.base + 3 * GIB);
	assert_null(guest_memory_at(&mem, 5 * GIB, 1));
	guest_memory_destroy(&mem);
}

static void copies(void **state)
{
	struct guest_memory mem = make(MIB);
	u64 value = 0x1122334455667788, back = 0;
	assert_int_equal(guest_memory_write(&mem, MIB - 8, &value, 8), 0);
	assert_int_equal(guest_memory_read(&mem, MIB - 8, &back, 8), 0);
	assert_int_equal(back, value);
	assert_int_equal(guest_memory_write(&mem, MIB - 7, &value, 8), -EFAULT);
	back = 1;
	assert_int_equal(guest_memory_read(&mem, MIB - 7, &back, 8), -EFAULT);
	assert_int_equal(back, 1);
	guest_memory_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(refuses_sizes),
	    cmocka_unit_test(door_of_small_memory),
	    cmocka_unit_test(hole_below_4g),
	    cmocka_unit_test(copies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
