/*
 * The tables of ACPI 6.5, chapter 5: RSDP -> XSDT -> FADT (-> FACS, DSDT), MADT.
 */
#include "boot/acpi.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "boot/aml.h"
#include "boot/layout.h"
#include "devices/acpi_pm.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "memory/memory.h"

#define PACKED __attribute__((packed))

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision;
	u8 checksum;
	char oem_id[6];
	char oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} PACKED;

struct acpi_rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum;
	u8 reserved[3];
} PACKED;

struct acpi_xsdt {
	struct acpi_header header;
	u64 tables[2];
} PACKED;

/* Generic address structure (5.2.3.2). */
struct acpi_address {
	u8 space; /* 1: I/O ports */
	u8 bits;
	u8 bit_offset;
	u8 access_size; /* 1 byte, 2 word, 3 dword */
	u64 address;
} PACKED;

struct acpi_fadt {
	struct acpi_header header;
	u32 facs;
	u32 dsdt;
	u8 reserved0;
	u8 preferred_profile;
	u16 sci;
	u32 smi_command;
	u8 acpi_enable, acpi_disable, s4bios, pstate_control;
	u32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer;
	u32 gpe0, gpe1;
	u8 pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
	u8 gpe0_length, gpe1_length, gpe1_base, cstate_control;
	u16 c2_latency, c3_latency;
	u16 flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_flags;
	u8 reserved1;
	u32 flags;
	struct acpi_address reset;
	u8 reset_value;
	u8 reserved2[3];
	u64 x_facs, x_dsdt;
	struct acpi_address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
	struct acpi_address x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
} PACKED;
_Static_assert(sizeof(struct acpi_fadt) == 244, "FADT of revision 3 and 4");

struct acpi_facs {
	char signature[4];
	u32 length;
	u32 hardware_signature;
	u32 waking_vector;
	u32 global_lock;
	u32 flags;
	u64 x_waking_vector;
	u8 version;
	u8 reserved[31];
} PACKED;
_Static_assert(sizeof(struct acpi_facs) == 64, "FACS");

struct acpi_madt {
	struct acpi_header header;
	u32 lapic_address;
	u32 flags;
} PACKED;

struct madt_lapic {
	u8 type, length;
	u8 processor, apic_id;
	u32 flags;
} PACKED;

struct madt_x2apic {
	u8 type, length;
	u16 reserved;
	u32 apic_id;
	u32 flags;
	u32 processor;
} PACKED;

struct madt_ioapic {
	u8 type, length;
	u8 id, reserved;
	u32 address;
	u32 gsi_base;
} PACKED;

struct madt_override {
	u8 type, length;
	u8 bus, irq;
	u32 gsi;
	u16 flags;
} PACKED;

struct madt_lapic_nmi {
	u8 type, length;
	u8 processor;
	u16 flags;
	u8 lint;
} PACKED;

enum madt_type {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_NMI = 4,
	MADT_X2APIC = 9,
};

#define MADT_PCAT_COMPAT    BIT(0) /* two 8259 are there, too */
#define MADT_ENABLED	    BIT(0)
#define MADT_ALL_PROCESSORS 0xff
#define MADT_ACTIVE_HIGH    (1 << 0)
#define MADT_LEVEL	    (3 << 2)
#define MADT_X2APIC_FROM    255 /* APIC ids that a byte cannot say, or that mean "all" */
#define LAPIC_ADDRESS	    0xfee00000u
#define IOAPIC_ADDRESS	    0xfec00000u

/* FADT flags (table 5.10) and boot architecture flags (table 5.11). */
#define FADT_WBINVD	     BIT(0)
#define FADT_PROC_C1	     BIT(2)
#define FADT_NO_POWER_BUTTON BIT(4)
#define FADT_NO_SLEEP_BUTTON BIT(5)
#define FADT_RTC_NOT_FIXED   BIT(6) /* no wake-up by alarm */
#define FADT_TIMER_32_BITS   BIT(8)
#define FADT_RESET_REGISTER  BIT(10)
#define BOOT_LEGACY_DEVICES  BIT(0)
#define BOOT_NO_VGA	     BIT(2)
#define FADT_NO_C2_LATENCY   0xfff /* more than 100 us, more than 1000 us: no C2, no C3 */
#define FADT_DESKTOP	     1
#define CMOS_CENTURY	     0x32

#define RTC_PORT    0x70
#define RESET_PORT  0xcf9
#define RESET_VALUE 6 /* system and CPU reset, by a 0 to 1 of bit 2 (ICH9 datasheet, RST_CNT) */

/* The room for tables, taken from its beginning on. */
struct tables {
	u8 *host;
	u64 gpa, size, used;
};

/** Takes zeroed room; NULL if there is too little. */
static void *take(struct tables *t, u64 size, u64 align, u64 *gpa)
{
	u64 at = align_up(t->used, align);
	if (at > t->size || size > t->size - at)
		return NULL;
	t->used = at + size;
	*gpa = t->gpa + at;
	return memset(t->host + at, 0, size);
}

static u8 checksum(const void *data, size_t size)
{
	const u8 *bytes = data;
	u8 sum = 0;
	while (size--)
		sum = (u8)(sum + *bytes++);
	return (u8)-sum;
}

static struct acpi_header header(const char *signature, u8 revision, size_t length)
{
	struct acpi_header h = {
	    .length = (u32)length, .revision = revision, .oem_revision = 1, .creator_revision = 1};
	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_id, "GUISE ", sizeof(h.oem_id));
	memcpy(h.oem_table_id, "MACHINE ", sizeof(h.oem_table_id));
	memcpy(h.creator_id, "GUIS", sizeof(h.creator_id));
	return h;
}

/** The last step of every table. */
static void seal(void *table)
{
	struct acpi_header *h = table;
	h->checksum = 0;
	h->checksum = checksum(table, h->length);
}

static void describe_sleep(struct aml *aml)
{
	/* 7.4.2: SLP_TYP for PM1a and PM1b, two reserved. */
	aml_name(aml, "\\_S5");
	size_t package = aml_package(aml, 4);
	aml_integer(aml, ACPI_S5_SLEEP_TYPE);
	aml_integer(aml, ACPI_S5_SLEEP_TYPE);
	aml_integer(aml, 0);
	aml_integer(aml, 0);
	aml_end(aml, package);
}

static void describe_device(struct aml *aml, const char *name, const char *id, u16 port, u8 ports,
			    u8 irq)
{
	size_t device = aml_device(aml, name);
	aml_name(aml, "_HID");
	aml_eisa_id(aml, id);
	aml_name(aml, "_UID");
	aml_integer(aml, 1);
	aml_name(aml, "_STA");
	aml_integer(aml, 0xf); /* present, enabled, shown, working */
	aml_name(aml, "_CRS");
	size_t resources = aml_resources(aml);
	aml_io(aml, port, ports);
	aml_irq(aml, irq);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

static bool build_dsdt(struct tables *t, u64 *gpa)
{
	u8 code[512];
	struct aml aml = {.bytes = code, .room = sizeof(code)};
	describe_sleep(&aml);
	size_t scope = aml_scope(&aml, "\\_SB");
	describe_device(&aml, "COM1", "PNP0501", SERIAL_COM1_PORT, SERIAL_PORTS, SERIAL_COM1_IRQ);
	describe_device(&aml, "RTC", "PNP0B00", RTC_PORT, 2, RTC_IRQ);
	aml_end(&aml, scope);
	if (aml.length > aml.room)
		return false;

	struct acpi_header *dsdt = take(t, sizeof(*dsdt) + aml.length, 16, gpa);
	if (!dsdt)
		return false;
	*dsdt = header("DSDT", 2, sizeof(*dsdt) + aml.length);
	memcpy(dsdt + 1, code, aml.length);
	seal(dsdt);
	return true;
}

static bool build_facs(struct tables *t, u64 *gpa)
{
	struct acpi_facs *facs = take(t, sizeof(*facs), 64, gpa);
	if (!facs)
		return false;
	*facs = (struct acpi_facs){.signature = "FACS", .length = sizeof(*facs), .version = 2};
	return true;
}

static struct acpi_address ports(u64 address, u8 bits, u8 access_size)
{
	return (struct acpi_address){
	    .space = 1, .bits = bits, .access_size = access_size, .address = address};
}

static bool build_fadt(struct tables *t, u64 facs, u64 dsdt, u64 *gpa)
{
	struct acpi_fadt *fadt = take(t, sizeof(*fadt), 16, gpa);
	if (!fadt)
		return false;
	/* No SMI command port: the machine is in ACPI mode from the start (4.8.2.5). */
	*fadt = (struct acpi_fadt){
	    .header = header("FACP", 4, sizeof(*fadt)),
	    .facs = (u32)facs,
	    .dsdt = (u32)dsdt,
	    .preferred_profile = FADT_DESKTOP,
	    .sci = ACPI_SCI_IRQ,
	    .pm1a_event = ACPI_PM1A_EVENT_PORT,
	    .pm1a_control = ACPI_PM1A_CONTROL_PORT,
	    .pm_timer = ACPI_PM_TIMER_PORT,
	    .pm1_event_length = 4,
	    .pm1_control_length = 2,
	    .pm_timer_length = 4,
	    .c2_latency = FADT_NO_C2_LATENCY,
	    .c3_latency = FADT_NO_C2_LATENCY,
	    .century = CMOS_CENTURY,
	    /*
	     * No BOOT_8042: the controller resets and answers, but there is never a keyboard, and
	     * with the flag Linux would look for one.
	     */
	    .boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
	    .flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
		     FADT_RTC_NOT_FIXED | FADT_TIMER_32_BITS | FADT_RESET_REGISTER,
	    .reset = ports(RESET_PORT, 8, 1),
	    .reset_value = RESET_VALUE,
	    .x_facs = facs,
	    .x_dsdt = dsdt,
	    .x_pm1a_event = ports(ACPI_PM1A_EVENT_PORT, 32, 2),
	    .x_pm1a_control = ports(ACPI_PM1A_CONTROL_PORT, 16, 2),
	    .x_pm_timer = ports(ACPI_PM_TIMER_PORT, 32, 3),
	};
	seal(fadt);
	return true;
}

/** One processor's entry at @at. Returns its size. */
static size_t describe_processor(u8 *at, u32 id)
{
	if (id < MADT_X2APIC_FROM) {
		struct madt_lapic e = {MADT_LAPIC, sizeof(e), (u8)id, (u8)id, MADT_ENABLED};
		memcpy(at, &e, sizeof(e));
		return sizeof(e);
	}
	struct madt_x2apic e = {.type = MADT_X2APIC,
				.length = sizeof(e),
				.apic_id = id,
				.flags = MADT_ENABLED,
				.processor = id};
	memcpy(at, &e, sizeof(e));
	return sizeof(e);
}

static bool build_madt(struct tables *t, u32 cpu_count, u64 *gpa)
{
	const struct madt_ioapic ioapic = {MADT_IOAPIC, sizeof(ioapic), 0, 0, IOAPIC_ADDRESS, 0};
	const struct madt_override overrides[] = {
	    {MADT_OVERRIDE, sizeof(overrides[0]), 0, 0, 2, 0}, /* the timer is on pin 2 */
	    {MADT_OVERRIDE, sizeof(overrides[0]), 0, ACPI_SCI_IRQ, ACPI_SCI_IRQ,
	     MADT_ACTIVE_HIGH | MADT_LEVEL},
	};
	const struct madt_lapic_nmi nmi = {MADT_LAPIC_NMI, sizeof(nmi), MADT_ALL_PROCESSORS, 0, 1};

	u64 low_ids = cpu_count < MADT_X2APIC_FROM ? cpu_count : MADT_X2APIC_FROM;
	u64 length = sizeof(struct acpi_madt) + low_ids * sizeof(struct madt_lapic) +
		     (cpu_count - low_ids) * sizeof(struct madt_x2apic) + sizeof(ioapic) +
		     sizeof(overrides) + sizeof(nmi);
	u8 *at = take(t, length, 16, gpa);
	if (!at)
		return false;
	struct acpi_madt *madt = (struct acpi_madt *)at;
	*madt = (struct acpi_madt){.header = header("APIC", 4, length),
				   .lapic_address = LAPIC_ADDRESS,
				   .flags = MADT_PCAT_COMPAT};
	at += sizeof(*madt);
	for (u32 id = 0; id < cpu_count; id++)
		at += describe_processor(at, id);
	memcpy(at, &ioapic, sizeof(ioapic));
	memcpy(at + sizeof(ioapic), overrides, sizeof(overrides));
	memcpy(at + sizeof(ioapic) + sizeof(overrides), &nmi, sizeof(nmi));
	seal(madt);
	return true;
}

static bool build_xsdt(struct tables *t, u64 fadt, u64 madt, u64 *gpa)
{
	struct acpi_xsdt *xsdt = take(t, sizeof(*xsdt), 16, gpa);
	if (!xsdt)
		return false;
	*xsdt =
	    (struct acpi_xsdt){.header = header("XSDT", 1, sizeof(*xsdt)), .tables = {fadt, madt}};
	seal(xsdt);
	return true;
}

static void fill_rsdp(struct acpi_rsdp *rsdp, u64 xsdt)
{
	*rsdp = (struct acpi_rsdp){
	    .oem_id = "GUISE ", .revision = 2, .length = sizeof(*rsdp), .xsdt = xsdt};
	memcpy(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature));
	rsdp->checksum = checksum(rsdp, offsetof(struct acpi_rsdp, length));
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
}

int acpi_build(const struct guest_memory *memory, u32 cpu_count, u64 *rsdp, struct error *err)
{
	struct tables t = {.gpa = BOOT_ACPI, .size = BOOT_HIGH_MEM - BOOT_ACPI};
	t.host = guest_memory_at(memory, t.gpa, t.size);
	if (!t.host)
		return error_set(err, ENOMEM, "the ACPI tables need a whole MiB of memory (-m)");

	u64 facs, dsdt, fadt, madt, xsdt;
	struct acpi_rsdp *root = take(&t, sizeof(*root), 16, rsdp);
	if (!root || !build_facs(&t, &facs) || !build_dsdt(&t, &dsdt) ||
	    !build_fadt(&t, facs, dsdt, &fadt) || !build_madt(&t, cpu_count, &madt) ||
	    !build_xsdt(&t, fadt, madt, &xsdt))
		return error_set(err, E2BIG, "no room for the ACPI tables of %u processors",
				 cpu_count);
	fill_rsdp(root, xsdt);
	return 0;
}
