/*
 * The monitor's debugger. What stops the guest is looked for where the guest's own debugging is:
 * single steps and data breakpoints make blocks of one instruction (MODE_STEP) and the dispatcher
 * looks behind each. Execution breakpoints cost nothing on the way: blocks end before them, and the
 * block that begins there is op_monitor_break().
 */
#include "engine/soft/guest_debug.h"

#include <errno.h>
#include <string.h>

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/system/exception.h"
#include "engine/soft/translate/block.h"
#include "engine/soft/translate/mode.h"

#define BREAKPOINTS    4
#define DR7_BREAKPOINT 0xffff00ffull /* what of DR7 describes breakpoints */

static u64 kind(const struct kvm_guest_debug_arch *arch, u32 n)
{
	return arch->debugreg[7] >> (16 + n * 4) & 3;
}

static bool enabled(const struct kvm_guest_debug_arch *arch, u32 n)
{
	return arch->debugreg[7] >> (n * 2) & 3;
}

static int inject(struct soft_vcpu *v, u32 control)
{
	struct pending_events *ev = &v->events;

	if (ev->exception || ev->soft_interrupt)
		return -EBUSY;
	ev->exception_has_error = false;
	if (control & KVM_GUESTDBG_INJECT_DB) {
		ev->exception = true;
		ev->exception_vector = EXC_DB;
	} else {
		ev->soft_interrupt = true;
		ev->soft_trap = true;
		ev->exception_vector = EXC_BP;
		ev->soft_length = v->debug.int3_length ? v->debug.int3_length : 1;
	}
	return 0;
}

/*
 * Blocks made for other execution breakpoints than @arch has are thrown away, unless none of them
 * is going to run: a debugger takes its breakpoints away for one step and puts them back.
 */
static void renew_blocks(struct soft_vcpu *v, const struct kvm_guest_debug_arch *arch)
{
	u64 address[BREAKPOINTS] = {0};
	u32 set = 0;

	if (v->debug.stepping)
		return;
	for (u32 n = 0; n < BREAKPOINTS; n++) {
		if (enabled(arch, n) && kind(arch, n) == 0) {
			address[n] = arch->debugreg[n];
			set |= 1u << n;
		}
	}
	if (set == v->debug.cached_set && !memcmp(address, v->debug.cached, sizeof(address)))
		return;
	memcpy(v->debug.cached, address, sizeof(address));
	v->debug.cached_set = set;
	cache_reset(v);
}

int soft_set_guest_debug(struct engine_vcpu *vcpu, const struct kvm_guest_debug *debug)
{
	struct soft_vcpu *v = container_of(vcpu, struct soft_vcpu, base);
	struct kvm_guest_debug_arch arch = {.debugreg = {0}};
	u32 control = debug->control & KVM_GUESTDBG_ENABLE ? debug->control : 0;
	u32 injected = debug->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP);

	if (debug->control & ~(u32)GUEST_DEBUG_FLAGS)
		return -EINVAL;
	int ret = injected ? inject(v, injected) : 0;
	if (ret < 0)
		return ret;
	if (control & KVM_GUESTDBG_USE_HW_BP)
		arch = debug->arch;
	arch.debugreg[7] &= DR7_BREAKPOINT;

	bool data = false;
	for (u32 n = 0; n < BREAKPOINTS; n++)
		data |= enabled(&arch, n) && kind(&arch, n) != 0;
	v->debug.control = control & ~injected;
	v->debug.stepping = data || (control & KVM_GUESTDBG_SINGLESTEP);
	v->debug.step_due = false;
	v->debug.hit = 0;
	memcpy(v->debug.dr, arch.debugreg, sizeof(v->debug.dr));
	v->debug.dr7 = arch.debugreg[7];
	renew_blocks(v, &arch);
	tlb_flush(v, false); /* watched pages stay out of it */
	vcpu_update_mode(v);
	vcpu_attention(v, ATTENTION_IRQ); /* what was held back */
	return 0;
}

void guest_debug_exit(struct soft_vcpu *v)
{
	struct kvm_run *run = v->base.run;

	run->exit_reason = KVM_EXIT_DEBUG;
	run->debug.arch = (struct kvm_debug_exit_arch){
	    .exception = EXC_DB,
	    .pc = v->rip + code_base(v, v->mode),
	    .dr6 = v->debug.hit | (v->debug.step_due ? DR6_BS : 0) | DR6_FIXED1,
	    .dr7 = v->debug.dr7 | DR7_FIXED1,
	};
	if ((v->mode & 3) != MODE_CODE64)
		run->debug.arch.pc = (u32)run->debug.arch.pc;
	v->debug.hit = 0;
	v->debug.step_due = false;
}
