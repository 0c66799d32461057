/* Sparse copies: all bytes arrive, and pages of zeroes are not written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "boot/bulk.h"
#include "boot_images.h"

#define PAGES 64
#define SIZE  (PAGES * 4096u)

/* Random stretches of data and zeroes, from and to any offset. */
static void test_copy_is_exact(void **state)
{
	u8 *from = calloc(1, SIZE), *to = malloc(SIZE);
	u64 random = 1;
	assert_non_null(from);
	assert_non_null(to);
	for (int i = 0; i < 200; i++) {
		u32 start = next_random(&random) % SIZE;
		u32 size = next_random(&random) % 20000 % (SIZE - start);
		memset(from + start, i % 3 ? 0 : i, size);
		u32 skip_from = next_random(&random) % 9000, skip_to = next_random(&random) % 9000;
		u32 length = next_random(&random) % (SIZE - 9000);
		memset(to, 0, SIZE);
		bulk_copy(to + skip_to, from + skip_from, length);
		assert_memory_equal(to + skip_to, from + skip_from, length);
		for (u32 k = 0; k < SIZE; k++)
			if ((k < skip_to || k >= skip_to + length) && to[k])
				fail_msg("byte %u outside of the copy was written", k);
	}
	free(from);
	free(to);
}

static void test_zero_pages_are_not_touched(void **state)
{
	u8 *from = calloc(1, SIZE), *to = bulk_alloc(SIZE);
	unsigned char resident[PAGES];
	assert_non_null(from);
	assert_non_null(to);
	madvise(to, SIZE, MADV_NOHUGEPAGE);
	from[5 * 4096 + 4095] = 1;
	from[40 * 4096] = 1;
	bulk_copy(to, from, SIZE);
	assert_int_equal(mincore(to, SIZE, resident), 0);
	for (u32 page = 0; page < PAGES; page++)
		assert_int_equal(resident[page] & 1, page == 5 || page == 40);
	bulk_free(to, SIZE);
	free(from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_copy_is_exact),
	    cmocka_unit_test(test_zero_pages_are_not_touched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
