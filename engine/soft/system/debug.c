/* Debug registers: MOV DR, and whether a breakpoint is met. SDM 3B 17.2; 2B MOV (debug registers).
 */
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/debug.h"
#include "engine/soft/system/priv.h"
#include "engine/soft/system/state.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/*
 * DR7:  31:16  LEN3 R/W3 ... LEN0 R/W0, two bits each
 *       13     GD      11:10 fixed 0 (RTM), 1       9:8 GE LE
 *       7:0    G3 L3 G2 L2 G1 L1 G0 L0
 */
#define DR7_WRITABLE 0xffff23ffull
#define DR6_WRITABLE 0xe00full

enum { BREAK_EXEC, BREAK_WRITE, BREAK_IO, BREAK_ACCESS }; /* R/Wn */

/* The guest's, or those of the monitor's debugger. */
struct breakpoints {
	const u64 *address;
	u64 control; /* as DR7 */
};

static struct breakpoints guests(const struct soft_vcpu *v)
{
	return (struct breakpoints){v->dr, v->dr7};
}

static struct breakpoints monitors(const struct soft_vcpu *v)
{
	return (struct breakpoints){v->debug.dr, v->debug.dr7};
}

static bool enabled(struct breakpoints b, u32 n)
{
	return (b.control >> (n * 2)) & 3;
}

static u32 kind(struct breakpoints b, u32 n)
{
	return (b.control >> (16 + n * 4)) & 3;
}

/* LENn: 1, 2, 8, 4 bytes (SDM 3B 17.2.4). */
static u64 length(struct breakpoints b, u32 n)
{
	static const u8 bytes[4] = {[0] = 1, [1] = 2, [2] = 8, [3] = 4};
	return bytes[(b.control >> (18 + n * 4)) & 3];
}

/* The low bits of the address are ignored up to the length (SDM 3B 17.2.5). */
static bool overlaps(struct breakpoints b, u32 n, u64 start, u64 size)
{
	u64 watched = b.address[n] & ~(length(b, n) - 1);
	return start - watched < length(b, n) || watched - start < size;
}

static u64 exec_hit(struct breakpoints b, u64 linear)
{
	u64 hit = 0;

	for (u32 n = 0; n < 4; n++)
		if (enabled(b, n) && kind(b, n) == BREAK_EXEC && b.address[n] == linear)
			hit |= BIT(n);
	return hit;
}

static u64 data_hit(struct breakpoints b, u64 linear, u32 size, bool write)
{
	u64 hit = 0;

	for (u32 n = 0; n < 4; n++) {
		u32 k = kind(b, n);
		if (enabled(b, n) && (k == BREAK_ACCESS || (k == BREAK_WRITE && write)) &&
		    overlaps(b, n, linear, size))
			hit |= BIT(n);
	}
	return hit;
}

u64 debug_breakpoints_hit(const struct soft_vcpu *v, u64 linear)
{
	return exec_hit(guests(v), linear);
}

u64 debug_monitor_hit(const struct soft_vcpu *v, u64 linear)
{
	return exec_hit(monitors(v), linear);
}

u64 debug_data_hit(const struct soft_vcpu *v, u64 linear, u32 size, bool write)
{
	return data_hit(guests(v), linear, size, write);
}

void debug_note_access(struct soft_vcpu *v, u64 linear, u32 size, bool write)
{
	v->events.debug |= data_hit(guests(v), linear, size, write);
	v->debug.hit |= data_hit(monitors(v), linear, size, write);
}

u64 debug_port_hit(const struct soft_vcpu *v, u16 port, u32 size)
{
	u64 hit = 0;

	/* R/W = 2 means I/O only with CR4.DE, else it is undefined (SDM 3B 17.2.4). */
	if (!(v->cr4 & CR4_DE))
		return 0;
	for (u32 n = 0; n < 4; n++)
		if (enabled(guests(v), n) && kind(guests(v), n) == BREAK_IO &&
		    overlaps(guests(v), n, port, size))
			hit |= BIT(n);
	return hit;
}

bool debug_page_watched(const struct soft_vcpu *v, u64 linear)
{
	u64 page = linear & PAGE_MASK;

	return debug_armed(v) && (data_hit(guests(v), page, PAGE_SIZE, true) ||
				  data_hit(monitors(v), page, PAGE_SIZE, true));
}

bool set_dr(struct soft_vcpu *v, u32 number, u64 value)
{
	bool was_armed = debug_armed(v);

	if (number >= 6 && value >> 32)
		return false;
	if (number < 4)
		v->dr[number] = value;
	else if (number == 6)
		v->dr6 = (value & DR6_WRITABLE) | DR6_FIXED1;
	else
		v->dr7 = (value & DR7_WRITABLE) | DR7_FIXED1;
	if (number != 6 && (was_armed || debug_armed(v))) {
		tlb_forget(v); /* DR0 to DR3 are those of a nested guest, too */
		vcpu_update_mode(v);
	}
	return true;
}

/* The checks common to both directions; returns the register's number, aliases resolved. */
static u32 check_dr(struct soft_vcpu *v, const struct insn *i, bool from)
{
	u32 number = i->reg;

	/* DR8 to DR15 do not exist; with CR4.DE neither do DR4 and DR5 (SDM 3B 17.2.2). */
	if (number > 7 || i->lock)
		raise_ud(v);
	if (number == 4 || number == 5) {
		if (v->cr4 & CR4_DE)
			raise_ud(v);
		number += 2;
	}
	require_cpl0(v);
	if (vmx_nonroot(v))
		vmx_on_mov_dr(v, i, from);
	/* General detect: a fault before the access; BD tells it apart. Delivery clears GD, so that
	 * the handler can reach the registers (SDM 3B 17.2.3, 17.2.4). */
	if (v->dr7 & DR7_GD) {
		if (!vmx_nonroot(v) || !vmx_wants_exception(v, EXC_DB, 0))
			v->dr6 |= DR6_BD;
		raise(v, EXC_DB);
	}
	return number;
}

void op_mov_to_dr(struct soft_vcpu *v, const struct insn *i)
{
	u32 number = check_dr(v, i, false);

	if (!set_dr(v, number, in_64bit(v) ? v->regs[i->rm] : (u32)v->regs[i->rm]))
		raise_gp(v, 0);
	v->rip = v->next_rip;
}

void op_mov_from_dr(struct soft_vcpu *v, const struct insn *i)
{
	u32 number = check_dr(v, i, true);
	u64 value = number < 4 ? v->dr[number] : number == 6 ? v->dr6 : v->dr7;

	v->regs[i->rm] = in_64bit(v) ? value : (u32)value;
}
