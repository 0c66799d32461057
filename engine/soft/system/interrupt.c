/* INT n, INT3, INT1, INTO, BOUND: exceptions and interrupts that programs ask for (SDM 2A). */
#include "engine/soft/system/descriptor.h"
#include "engine/soft/translate/ops.h"
#include "engine/soft/vmx/vmx.h"

/* v->rip stays at the instruction until the handler is entered: faults on the way point to it. */
static void software_event(struct soft_vcpu *v, enum event_kind kind, u8 vector)
{
	struct event ev = {
	    .kind = kind,
	    .vector = vector,
	    .rip = v->next_rip,
	    .flags = vcpu_rflags(v) & ~RFLAGS_RF,
	    .length = (u8)(v->next_rip - v->rip),
	    .privileged = kind == EVENT_EXCEPTION,
	};

	event_deliver(v, &ev);
}

void op_int_n(struct soft_vcpu *v, const struct insn *i)
{
	software_event(v, EVENT_SOFT_INT, (u8)i->imm);
}

/* A breakpoint of the monitor's debugger, perhaps: it will tell. */
static _Noreturn void report_int3(struct soft_vcpu *v, const struct insn *i)
{
	struct kvm_run *run = v->base.run;

	v->debug.int3_length = i->length;
	run->exit_reason = KVM_EXIT_DEBUG;
	run->debug.arch = (struct kvm_debug_exit_arch){
	    .exception = EXC_BP,
	    .pc = is_code64(v) ? v->rip : (u32)(v->seg[SEG_CS].base + v->rip),
	    .dr6 = DR6_FIXED1,
	    .dr7 = v->debug.dr7 | DR7_FIXED1,
	};
	vcpu_exit(v);
}

void op_int3(struct soft_vcpu *v, const struct insn *i)
{
	if (unlikely(v->debug.control & KVM_GUESTDBG_USE_SW_BP))
		report_int3(v, i);
	if (vmx_nonroot(v))
		vmx_on_software_exception(v, INFO_SOFTWARE_EXCEPTION, EXC_BP, i->length);
	software_event(v, EVENT_SOFT_TRAP, EXC_BP);
}

/*
 * Without DPL check, and external for error codes: a hardware event by its rules. Breakpoints that
 * MOV SS has put off (SDM 3A 6.8.3) are due at the same boundary and make one #DB with it.
 */
void op_int1(struct soft_vcpu *v, const struct insn *i)
{
	if (vmx_nonroot(v))
		vmx_on_software_exception(v, INFO_PRIVILEGED_EXCEPTION, EXC_DB, i->length);
	if (v->events.debug) {
		v->dr6 = (v->dr6 & ~0xfull) | v->events.debug | DR6_FIXED1;
		v->events.debug = 0;
	}
	software_event(v, EVENT_EXCEPTION, EXC_DB);
}

void op_into(struct soft_vcpu *v, const struct insn *i)
{
	if (is_code64(v))
		raise_ud(v);
	if (!(vcpu_rflags(v) & RFLAGS_OF)) {
		v->rip = v->next_rip;
		return;
	}
	if (vmx_nonroot(v))
		vmx_on_software_exception(v, INFO_SOFTWARE_EXCEPTION, EXC_OF, i->length);
	software_event(v, EVENT_SOFT_TRAP, EXC_OF);
}

void op_bound(struct soft_vcpu *v, const struct insn *i)
{
	u32 size = i->opsize;

	if (!i->is_mem)
		raise_ud(v);
	u64 address = insn_ea(v, i);
	u64 low = mem_read(v, i->seg, address, size);
	u64 high = mem_read(v, i->seg,
			    i->addrsize == 2 ? (u16)(address + size) : (u32)(address + size), size);
	u64 index = v->regs[i->reg];
	bool inside = size == 2 ? (s16)index >= (s16)low && (s16)index <= (s16)high
				: (s32)index >= (s32)low && (s32)index <= (s32)high;
	if (!inside)
		raise(v, EXC_BR);
}
