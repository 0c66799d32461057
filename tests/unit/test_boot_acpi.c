/* The ACPI tables, walked as an operating system does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "boot/acpi.h"
#include "boot/aml.h"
#include "boot/layout.h"
#include "boot_images.h"

static u32 get32(const u8 *at)
{
	u32 value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static u64 get64(const u8 *at)
{
	u64 value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static u8 sum(const u8 *at, size_t size)
{
	u8 total = 0;
	while (size--)
		total = (u8)(total + *at++);
	return total;
}

static const u8 *table(struct guest_memory *memory, u64 gpa, const char *signature)
{
	assert_in_range(gpa, BOOT_ACPI, BOOT_HIGH_MEM - 36);
	const u8 *at = guest_memory_at(memory, gpa, 36);
	assert_non_null(at);
	assert_memory_equal(at, signature, 4);
	assert_in_range(get32(at + 4), 36, BOOT_HIGH_MEM - gpa);
	assert_int_equal(sum(at, get32(at + 4)), 0);
	return at;
}

struct machine {
	struct guest_memory memory;
	const u8 *rsdp, *fadt, *madt;
};

static struct machine build(u32 cpu_count)
{
	struct machine m = {.memory = {0}};
	u64 rsdp;
	assert_int_equal(guest_memory_create(&m.memory, 2 * MIB, NULL), 0);
	assert_int_equal(acpi_build(&m.memory, cpu_count, &rsdp, NULL), 0);
	assert_in_range(rsdp, 0xe0000, 0xfffff);
	assert_int_equal(rsdp % 16, 0);
	m.rsdp = guest_memory_at(&m.memory, rsdp, 36);
	const u8 *xsdt = table(&m.memory, get64(m.rsdp + 24), "XSDT");
	assert_int_equal(get32(xsdt + 4), 36 + 2 * 8);
	m.fadt = table(&m.memory, get64(xsdt + 36), "FACP");
	m.madt = table(&m.memory, get64(xsdt + 44), "APIC");
	return m;
}

static void test_root_pointer(void **state)
{
	struct machine m = build(1);
	assert_memory_equal(m.rsdp, "RSD PTR ", 8);
	assert_int_equal(m.rsdp[15], 2);
	assert_int_equal(sum(m.rsdp, 20), 0);
	assert_int_equal(get32(m.rsdp + 20), 36);
	assert_int_equal(sum(m.rsdp, 36), 0);
	guest_memory_destroy(&m.memory);
}

static void test_fixed_hardware(void **state)
{
	struct machine m = build(1);
	const u8 *f = m.fadt;
	assert_int_equal(get32(f + 4), 244);
	assert_int_equal(f[46], 9);		/* SCI */
	assert_int_equal(get32(f + 48), 0);	/* no SMI command: always in ACPI mode */
	assert_int_equal(get32(f + 56), 0x600); /* PM1a event */
	assert_int_equal(f[88], 4);
	assert_int_equal(get32(f + 64), 0x604); /* PM1a control */
	assert_int_equal(f[89], 2);
	assert_int_equal(get32(f + 76), 0x608); /* PM timer */
	assert_int_equal(f[91], 4);
	assert_int_equal(f[109] & 0x27,
			 0x05); /* legacy, no VGA; the RTC is there; no 8042 to look at */
	assert_int_equal(get32(f + 112) & BIT(10), BIT(10)); /* reset register */
	assert_int_equal(get32(f + 112) & BIT(20), 0);	     /* not hardware-reduced */
	assert_int_equal(get32(f + 112) & BIT(8), BIT(8));   /* the timer has 32 bits */
	assert_int_equal(f[116], 1);			     /* in I/O space */
	assert_int_equal(get64(f + 120), 0xcf9);
	assert_int_equal(f[128], 6);
	assert_int_equal(get64(f + 132), get32(f + 36)); /* FACS, both ways to say it */
	assert_int_equal(get64(f + 140), get32(f + 40)); /* DSDT */
	assert_int_equal(get64(f + 152), 0x600);
	assert_int_equal(get64(f + 176), 0x604);
	assert_int_equal(get64(f + 212), 0x608);

	const u8 *facs = guest_memory_at(&m.memory, get32(f + 36), 64);
	assert_int_equal(get32(f + 36) % 64, 0);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(get32(facs + 4), 64);
	guest_memory_destroy(&m.memory);
}

/* As iasl disassembles it: Name (_S5, Package (0x04) { 5, 5, 0, 0 }), Scope (\_SB) { COM1, RTC }.
 */
static void test_dsdt(void **state)
{
	static const u8 s5[] = {0x08, '\\', '_',  'S',	'5',  '_',  0x12, 0x49,
				0x00, 0x04, 0x0a, 0x05, 0x0a, 0x05, 0x00, 0x00};
	static const u8 com1[] = {
	    0x5b, 0x82, 0x44, 0x03, 'C',  'O',	'M',  '1',  0x08, '_',	'H',  'I',  'D',  0x0c,
	    0x41, 0xd0, 0x05, 0x01, 0x08, '_',	'U',  'I',  'D',  0x01, 0x08, '_',  'S',  'T',
	    'A',  0x0a, 0x0f, 0x08, '_',  'C',	'R',  'S',  0x11, 0x41, 0x01, 0x0a, 0x0d, 0x47,
	    0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00,
	};
	struct machine m = build(1);
	const u8 *dsdt = table(&m.memory, get32(m.fadt + 40), "DSDT");
	size_t length = get32(dsdt + 4);
	assert_memory_equal(dsdt + 36, s5, sizeof(s5));
	/* Scope with a two-byte length that reaches the table's end. */
	const u8 *scope = dsdt + 36 + sizeof(s5);
	assert_int_equal(scope[0], 0x10);
	assert_int_equal(scope[1] >> 6, 1);
	assert_int_equal((scope[1] & 0xf) | scope[2] << 4, dsdt + length - (scope + 1));
	assert_memory_equal(scope + 3, "\\_SB_", 5);
	assert_memory_equal(scope + 8, com1, sizeof(com1));
	guest_memory_destroy(&m.memory);
}

struct madt_seen {
	u32 lapics, x2apics, ioapics, overrides, nmis;
	u64 ids[8]; /* a bit for each of the first 512 */
};

static struct madt_seen walk_madt(const u8 *madt)
{
	struct madt_seen seen = {0};
	u32 length = get32(madt + 4);
	assert_int_equal(get32(madt + 36), 0xfee00000);
	assert_int_equal(get32(madt + 40) & 1, 1);
	for (u32 at = 44; at < length; at += madt[at + 1]) {
		const u8 *e = madt + at;
		assert_in_range(e[1], 6, length - at);
		if (e[0] == 0) {
			assert_int_equal(get32(e + 4), 1);
			seen.ids[e[3] / 64] |= BIT(e[3] % 64);
			seen.lapics++;
		} else if (e[0] == 9) {
			assert_int_equal(get32(e + 8), 1);
			assert_in_range(get32(e + 4), 255, 511);
			seen.ids[get32(e + 4) / 64] |= BIT(get32(e + 4) % 64);
			seen.x2apics++;
		} else if (e[0] == 1) {
			assert_int_equal(get32(e + 4), 0xfec00000);
			assert_int_equal(get32(e + 8), 0);
			seen.ioapics++;
		} else if (e[0] == 2) {
			if (e[3] == 0)
				assert_int_equal(get32(e + 4), 2);
			else
				assert_int_equal(get32(e + 4), 9);
			assert_int_equal(e[8], e[3] == 9 ? 0x0d : 0);
			seen.overrides++;
		} else {
			assert_int_equal(e[0], 4);
			assert_int_equal(e[2], 0xff);
			assert_int_equal(e[5], 1);
			seen.nmis++;
		}
	}
	return seen;
}

static void test_processors(void **state)
{
	static const u32 counts[] = {1, 2, 64, 254, 255, 256, 300, 512};
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct machine m = build(counts[i]);
		struct madt_seen seen = walk_madt(m.madt);
		assert_int_equal(seen.lapics + seen.x2apics, counts[i]);
		assert_int_equal(seen.x2apics, counts[i] > 255 ? counts[i] - 255 : 0);
		u32 ids = 0;
		for (size_t w = 0; w < ARRAY_SIZE(seen.ids); w++)
			ids += (u32)__builtin_popcountll(seen.ids[w]);
		assert_int_equal(ids, counts[i]);
		assert_int_equal(seen.ioapics, 1);
		assert_int_equal(seen.overrides, 2);
		assert_int_equal(seen.nmis, 1);
		guest_memory_destroy(&m.memory);
	}
}

static void test_too_many_processors(void **state)
{
	struct guest_memory memory;
	struct error err;
	u64 rsdp;
	assert_int_equal(guest_memory_create(&memory, MIB, NULL), 0);
	assert_int_equal(acpi_build(&memory, 20000, &rsdp, &err), -7 /* E2BIG */);
	assert_non_null(strstr(err.text, "20000"));
	assert_int_equal(acpi_build(&memory, UINT32_MAX, &rsdp, &err), -7);
	guest_memory_destroy(&memory);
}

/* Nothing is written past the room, and the length tells that it was too little. */
static void test_aml_room(void **state)
{
	u8 bytes[64];
	for (size_t room = 0; room <= 28; room++) {
		memset(bytes, 0xee, sizeof(bytes));
		struct aml aml = {.bytes = bytes, .room = room};
		size_t device = aml_device(&aml, "DEV");
		aml_name(&aml, "_CRS");
		size_t resources = aml_resources(&aml);
		aml_io(&aml, 0x1234, 1);
		aml_resources_end(&aml, resources);
		aml_end(&aml, device);
		assert_int_equal(aml.length > room, room < 28);
		for (size_t i = room; i < sizeof(bytes); i++)
			assert_int_equal(bytes[i], 0xee);
	}
}

static void test_aml_integers(void **state)
{
	static const u8 expected[] = {0x00, 0x01, 0x0a, 0x02, 0x0a, 0xff, 0x0b, 0x00, 0x01,
				      0x0b, 0xff, 0xff, 0x0c, 0x00, 0x00, 0x01, 0x00};
	u8 bytes[32];
	struct aml aml = {.bytes = bytes, .room = sizeof(bytes)};
	static const u32 values[] = {0, 1, 2, 0xff, 0x100, 0xffff, 0x10000};
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		aml_integer(&aml, values[i]);
	assert_int_equal(aml.length, sizeof(expected));
	assert_memory_equal(bytes, expected, sizeof(expected));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_root_pointer),
	    cmocka_unit_test(test_fixed_hardware),
	    cmocka_unit_test(test_dsdt),
	    cmocka_unit_test(test_processors),
	    cmocka_unit_test(test_too_many_processors),
	    cmocka_unit_test(test_aml_room),
	    cmocka_unit_test(test_aml_integers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
