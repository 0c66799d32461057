/*
 * Images of every kind with bytes changed at random, most of them in headers: each is loaded or
 * refused with one line, and nothing else happens. Built with address and undefined behaviour
 * sanitizers. GUISE_MUTATIONS: how many (default 10,000, with GUISE_QUICK 2,000); GUISE_SEED: of
 * the first; an argument: a kernel file to change instead of the made-up ones.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot_images.h"

#define MEMORY (128 * MIB)

static struct bytes bases[PACKINGS + 5];
static u32 base_count;
static u64 seed = 1;
static u32 mutations = 10000;

static void make_bases(void)
{
	struct bytes kernel = make_vmlinux(0);
	for (enum packing packing = 0; packing <= PACK_UNKNOWN; packing++)
		bases[base_count++] = make_bzimage(packing, &kernel);
	bases[base_count++] = kernel;
	bases[base_count++] = make_vmlinux(KERNEL_ENTRY);
	bases[base_count++] = make_multiboot_elf(3);
	bases[base_count++] = make_multiboot_raw();
}

/** Where to change something: headers more often than the rest. */
static size_t pick_offset(const struct bytes *image, u64 *random)
{
	static const u32 spots[][2] = {
	    {0x000, 0x0f0},			  /* ELF headers */
	    {0x1f0, 0x080},			  /* setup header */
	    {0x140, 0x020},			  /* Multiboot header */
	    {0x1000, 0x020},			  /* Multiboot header in ELF */
	    {BZ_CODE + BZ_PAYLOAD_OFFSET, 0x040}, /* head of a packed payload */
	};
	u32 choice = next_random(random) % 8;
	if (choice >= ARRAY_SIZE(spots))
		return next_random(random) % image->size;
	return (spots[choice][0] + next_random(random) % spots[choice][1]) % image->size;
}

static u64 pick_value(u64 *random)
{
	static const u64 edges[] = {0,		1,	     0x7f,	0x80,	    0xff,
				    0x7fff,	0xffff,	     0x10000,	0x7fffffff, 0x80000000,
				    0xffffffff, 0x100000000, INT64_MAX, UINT64_MAX, MEMORY,
				    MEMORY - 1, KERNEL_AT,   0xb8000,	0xfee00000};
	if (next_random(random) % 2)
		return edges[next_random(random) % ARRAY_SIZE(edges)];
	return (u64)next_random(random) << 32 | next_random(random) << 1;
}

static struct bytes mutate(const struct bytes *base, u64 *random)
{
	struct bytes image = {0};
	bytes_put(&image, 0, base->at, base->size);
	for (u32 changes = 1 + next_random(random) % 4; changes; changes--) {
		size_t offset = pick_offset(&image, random);
		size_t size = 1u << next_random(random) % 4;
		u64 value = pick_value(random);
		if (size > image.size - offset)
			size = image.size - offset;
		memcpy(image.at + offset, &value, size);
	}
	if (next_random(random) % 16 == 0)
		image.size = 1 + next_random(random) % image.size;
	return image;
}

static void assert_sane(const struct loaded *l, u64 this_seed)
{
	if (l->ret == 0) {
		if (!guest_memory_at(&l->memory, l->state.regs.rip, 1))
			fail_msg("seed %#llx starts outside of memory",
				 (unsigned long long)this_seed);
		return;
	}
	bool known =
	    l->ret == -ENOEXEC || l->ret == -EBADMSG || l->ret == -ENOMEM || l->ret == -E2BIG;
	if (!known || !l->err.text[0] || strchr(l->err.text, '\n'))
		fail_msg("seed %#llx: %d \"%s\"", (unsigned long long)this_seed, l->ret,
			 l->err.text);
}

static void test_mutations(void **state)
{
	struct test_file initrd = file_of("initrd", 6);
	struct loaded l = {.ret = 0}; /* one memory for all: a new one each time is slow */
	u32 loaded = 0;
	assert_int_equal(guest_memory_create(&l.memory, MEMORY, &l.err), 0);
	for (u32 i = 0; i < mutations; i++) {
		u64 this_seed = seed + i, random = this_seed * 0x9e3779b97f4a7c15ull;
		struct bytes image = mutate(&bases[i % base_count], &random);
		struct test_file file = file_of(image.at, image.size);
		struct boot_image_request request = {.kernel_path = file.path,
						     .initrd_path = initrd.path,
						     .cmdline = "console=ttyS0",
						     .cpu_count = 1};
		l.err.text[0] = 0;
		l.ret = boot_load(&request, &l.memory, &l.state, &l.err);
		assert_sane(&l, this_seed);
		loaded += !l.ret;
		file_close(&file);
		bytes_free(&image);
	}
	/* Had all been refused at the door, little would have been tested. */
	assert_in_range(loaded, mutations / 20, mutations - mutations / 20);
	print_message("%u of %u images were loaded\n", loaded, mutations);
	unload(&l);
	file_close(&initrd);
}

/** Reads the file that was named on the command line. */
static void use_file(const char *path)
{
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	struct bytes *base = &bases[base_count++];
	u8 piece[65536];
	size_t got;
	while ((got = fread(piece, 1, sizeof(piece), file)))
		bytes_put(base, base->size, piece, got);
	fclose(file);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutations)};
	if (getenv("GUISE_QUICK"))
		mutations = 2000;
	if (getenv("GUISE_MUTATIONS"))
		mutations = (u32)strtoul(getenv("GUISE_MUTATIONS"), NULL, 0);
	if (getenv("GUISE_SEED"))
		seed = strtoull(getenv("GUISE_SEED"), NULL, 0);
	if (argc > 1)
		use_file(argv[1]);
	else
		make_bases();
	int ret = cmocka_run_group_tests(tests, NULL, NULL);
	while (base_count)
		bytes_free(&bases[--base_count]);
	return ret;
}
