// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A vCPU's life and its run loop.
 *
 *	KVM_RUN: vcpu_run()
 *		finish what the owner was asked for (io.c, mmio.c)
 *		enter_once() until it says 0 or an error
 *			events_inject()			what goes in with this entry
 *			host_before_entry(), world_switch(), host_after_exit()
 *			exit_handle()			1: again; 0: the owner's turn
 */
#include <linux/idr.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/mce.h>
#include <asm/trapnr.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

/* Tags for what processors cache of guests' linear addresses (SDM 3C 28.1); 0 is the host's. */
static DEFINE_IDA(vpids);

/* Preemption is off. */
static void load_here(struct vcpu *v)
{
	if (!vmcs_load(&v->place))
		return;
	host_moved(v);
	/* What this processor has cached from the last time may be out of date: INVLPGs were
	 * elsewhere. */
	if (v->vpid)
		invvpid_context(v->vpid);
}

static void sched_in(struct preempt_notifier *notifier, int cpu)
{
	load_here(container_of(notifier, struct vcpu, notifier));
}

static void sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
	host_from_guest(container_of(notifier, struct vcpu, notifier));
}

static struct preempt_ops preempt_operations = {.sched_in = sched_in, .sched_out = sched_out};

void vcpu_load(struct vcpu *v)
{
	preempt_disable();
	preempt_notifier_register(&v->notifier);
	load_here(v);
	preempt_enable();
}

void vcpu_put(struct vcpu *v)
{
	preempt_disable();
	host_from_guest(v);
	preempt_notifier_unregister(&v->notifier);
	preempt_enable();
}

static void init_controls(struct vcpu *v)
{
	const struct vmcs_controls *c = &vmcs_controls;

	vmcs_write(PIN_BASED_VM_EXEC_CONTROL, c->pin);
	vmcs_write(CPU_BASED_VM_EXEC_CONTROL, c->primary);
	v->primary_controls = c->primary;
	vmcs_write(SECONDARY_VM_EXEC_CONTROL, c->secondary);
	vmcs_write(VM_EXIT_CONTROLS, c->exit);
	vmcs_write(VM_ENTRY_CONTROLS, c->entry);
	if (c->preemption_timer)
		vmcs_write(VMX_PREEMPTION_TIMER_VALUE, c->preemption_timer);
	vmcs_write(EPT_POINTER, v->vm->eptp);
	if (v->vpid)
		vmcs_write(VIRTUAL_PROCESSOR_ID, v->vpid);
	vmcs_write(MSR_BITMAP, msr_bitmap());
	vmcs_write(VMCS_LINK_POINTER, ~0ull);
	vmcs_write(TSC_OFFSET, 0);
	vmcs_write(EXCEPTION_BITMAP, EXCEPTIONS_ALWAYS);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MASK, 0);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
	vmcs_write(CR3_TARGET_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write(VM_ENTRY_MSR_LOAD_COUNT, 0);
}

void vcpu_reset(struct vcpu *v, bool init)
{
	struct kvm_segment data = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
	struct kvm_segment code = {.base = 0xffff0000,
				   .limit = 0xffff,
				   .selector = 0xf000,
				   .type = 11,
				   .present = 1,
				   .s = 1};
	struct kvm_segment ldt = {.limit = 0xffff, .type = 2, .present = 1};
	struct kvm_segment tss = {.limit = 0xffff, .type = 11, .present = 1};

	memset(&v->registers, 0, sizeof(v->registers));
	v->registers.r[RDX] = 0x600;
	for (int i = SEGMENT_ES; i <= SEGMENT_GS; i++)
		state_set_segment(i, i == SEGMENT_CS ? &code : &data);
	state_set_segment(SEGMENT_LDTR, &ldt);
	state_set_segment(SEGMENT_TR, &tss);
	vmcs_write(GUEST_GDTR_BASE, 0);
	vmcs_write(GUEST_GDTR_LIMIT, 0xffff);
	vmcs_write(GUEST_IDTR_BASE, 0);
	vmcs_write(GUEST_IDTR_LIMIT, 0xffff);
	field_put(v, FIELD_RIP, 0xfff0);
	field_put(v, FIELD_RSP, 0);
	field_put(v, FIELD_RFLAGS, X86_EFLAGS_FIXED);
	control_update_masks(v);
	control_put_cr0(v, X86_CR0_CD | X86_CR0_NW | X86_CR0_ET);
	control_put_cr4(v, 0);
	control_put_efer(v, 0);
	vmcs_write(GUEST_CR3, 0);
	memset(v->dr, 0, sizeof(v->dr));
	debug_put_dr6(v, 0);
	debug_put_dr7(v, 0);
	v->cr2 = 0;
	v->chip.cr8 = 0;
	vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	field_put(v, FIELD_BLOCKING, 0);
	field_put(v, FIELD_PENDING_DEBUG, 0);
	events_init(v);
	if (!init) {
		msr_reset(v);
		v->xcr0 = XFEATURE_MASK_FP;
	}
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_request(v, REQUEST_FLUSH_TLB);
}

static int alloc_vpid(struct vcpu *v)
{
	int ret;

	if (!vmcs_controls.vpid)
		return 0;
	ret = ida_alloc_range(&vpids, 1, U16_MAX, GFP_KERNEL);
	if (ret < 0)
		return ret;
	v->vpid = ret;
	return 0;
}

struct vcpu *vcpu_create(struct vm *vm, u32 id)
{
	struct vcpu *v = kvzalloc(sizeof(*v), GFP_KERNEL_ACCOUNT);

	if (!v)
		return ERR_PTR(-ENOMEM);
	v->vm = vm;
	v->id = id;
	mutex_init(&v->lock);
	init_waitqueue_head(&v->wait);
	preempt_notifier_init(&v->notifier, &preempt_operations);
	v->place.cpu = -1;
	v->host.cr3 = v->host.cr4 = ~0ul; /* never written */
	v->run = (struct kvm_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	v->port_data = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!v->run || !v->port_data || !fpu_alloc_guest_fpstate(&v->fpu) || alloc_vpid(v) ||
	    chips_create_vcpu(v) || vmcs_place_init(&v->place)) {
		vcpu_destroy(v);
		return ERR_PTR(-ENOMEM);
	}
	vm_get(vm);

	vcpu_load(v);
	init_controls(v);
	debug_init(v);
	host_init_vmcs();
	vcpu_reset(v, false);
	if (v->chip.lapic && id)
		v->mp_state = KVM_MP_STATE_UNINITIALIZED;
	cpuid_changed(v);
	vcpu_put(v);
	return v;
}

/* Also of one whose creation has failed half way, before it held its VM. */
void vcpu_destroy(struct vcpu *v)
{
	bool complete = v->place.vmcs;

	chips_destroy_vcpu(v);
	vmcs_place_free(&v->place);
	if (v->vpid)
		ida_free(&vpids, v->vpid);
	if (v->fpu.fpstate)
		fpu_free_guest_fpstate(&v->fpu);
	free_page((unsigned long)v->port_data);
	free_page((unsigned long)v->run);
	if (complete)
		vm_put(v->vm);
	kvfree(v);
}

void vcpu_request(struct vcpu *v, int request)
{
	set_bit(request, &v->requests);
}

/*
 * Brings the vCPU to the start of its loop soon, from any context. Whoever calls it has stored what
 * the vCPU shall look at; vcpu_run() announces itself and looks then, so that one of the two sees
 * the other.
 */
void vcpu_kick(struct vcpu *v)
{
	int cpu;

	smp_mb();
	wake_up_interruptible(&v->wait);
	preempt_disable();
	cpu = READ_ONCE(v->place.cpu);
	/* On this processor the interrupt that brought us here has brought it out, too. */
	if (READ_ONCE(v->in_guest) && cpu >= 0 && cpu != raw_smp_processor_id() && cpu_online(cpu))
		smp_send_reschedule(cpu);
	preempt_enable();
}

static void do_requests(struct vcpu *v)
{
	if (!READ_ONCE(v->requests))
		return;
	/* Without a VPID each entry and exit drops everything (SDM 3C 28.3.3.1). */
	if (test_and_clear_bit(REQUEST_FLUSH_TLB, &v->requests) && v->vpid) {
		preempt_disable();
		invvpid_context(v->vpid);
		preempt_enable();
	}
	if (test_and_clear_bit(REQUEST_PDPTRS, &v->requests)) {
		down_read(&v->vm->memory_lock);
		control_load_pdptrs(v);
		up_read(&v->vm->memory_lock);
	}
	if (test_and_clear_bit(REQUEST_TIMERS, &v->requests))
		chips_run_timers(v);
	if (test_and_clear_bit(REQUEST_EVENTS, &v->requests) && v->chip.lapic)
		chips_take_events(v);
}

static int entry_refused(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	v->run->fail_entry.hardware_entry_failure_reason = vmcs_read(VM_INSTRUCTION_ERROR);
	v->run->fail_entry.cpu = raw_smp_processor_id();
	return 0;
}

/* As if it had hit the owner's program, which is whom it costs: what a guest was doing is nothing
 * that the host could not do without. */
static void machine_check(void)
{
#ifdef CONFIG_X86_MCE
	struct pt_regs regs = {.cs = 3, .flags = X86_EFLAGS_IF};

	do_machine_check(&regs);
#endif
}

/* NMIs and machine checks that ended the guest's run are the host's: its handlers get them now, on
 * this processor. After an exit by an NMI others are blocked until the handler's IRET (SDM
 * 3C 27.5.5). */
static void pass_to_host(struct vcpu *v)
{
	u32 info;

	if ((u16)v->exit_reason == EXIT_REASON_MCE_DURING_VMENTRY) {
		machine_check();
		return;
	}
	if (v->exit_reason != EXIT_REASON_EXCEPTION_NMI)
		return;
	info = vmcs_read(VM_EXIT_INTR_INFO);
	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR)
		asm volatile("int $2");
	else if ((info & INTR_INFO_VECTOR_MASK) == X86_TRAP_MC)
		machine_check();
}

/* 1: enter again; 0: the owner's turn; negative: an error, -EINTR for a signal. */
static int enter_once(struct vcpu *v)
{
	bool failed;
	int ret;

	do_requests(v);
	ret = events_inject(v);
	if (ret <= 0)
		return ret;

	fields_write_back(v);

	preempt_disable();
	if (!v->host.loaded)
		host_to_guest(v);
	local_irq_disable();
	WRITE_ONCE(v->in_guest, true);
	smp_mb(); /* with vcpu_kick() */
	if (READ_ONCE(v->requests) || need_resched() || signal_pending(current)) {
		WRITE_ONCE(v->in_guest, false);
		local_irq_enable();
		preempt_enable();
		return 1;
	}

	host_before_entry(v);
	failed = world_switch(&v->registers, v->place.launched);
	host_after_exit(v);

	WRITE_ONCE(v->in_guest, false);
	fields_forget(v);
	if (!failed) {
		v->exit_reason = vmcs_read(VM_EXIT_REASON);
		/* SDM 3C 26.8: an entry that fails on guest state launches nothing. */
		if (!(v->exit_reason & VMX_EXIT_REASONS_FAILED_VMENTRY))
			v->place.launched = true;
		pass_to_host(v);
	}
	/* The external interrupt that ended the guest's run is still pending; the host takes it
	 * here. */
	local_irq_enable();
	preempt_enable();
	if (failed)
		return entry_refused(v);

	events_take_back(v);
	return exit_handle(v);
}

/* Finishes the access that the last exit asked the owner for. 1: done, go on. */
static int finish_request(struct vcpu *v)
{
	switch (v->io.kind) {
	case IO_NONE:
		return 1;
	case IO_PORT_IN:
		return io_complete(v);
	case IO_MMIO_READ:
	case IO_MMIO_WRITE:
		return mmio_complete(v);
	}
	return 1;
}

/* Sleeps until the vCPU may run, or a signal comes: -EINTR. The VMCS goes and comes with the thread
 * (sched_in()). */
static int wait_until_runnable(struct vcpu *v)
{
	for (;;) {
		/* Threads of the owner's can make requests as fast as they are done here. */
		cond_resched();
		if (signal_pending(current))
			return -EINTR;
		do_requests(v);
		if (v->mp_state == KVM_MP_STATE_HALTED && events_wake(v))
			v->mp_state = KVM_MP_STATE_RUNNABLE;
		if (v->mp_state == KVM_MP_STATE_RUNNABLE)
			return 0;
		if (wait_event_interruptible(v->wait, READ_ONCE(v->requests)))
			return -EINTR;
	}
}

static int run_loop(struct vcpu *v)
{
	int ret = finish_request(v);

	if (ret <= 0)
		return ret;
	if (READ_ONCE(v->run->immediate_exit))
		return -EINTR;
	for (;;) {
		if (debug_stop_after_step(v))
			return 0;
		if (wait_until_runnable(v)) {
			v->run->exit_reason = KVM_EXIT_INTR;
			return -EINTR;
		}
		ret = enter_once(v);
		if (ret <= 0)
			return ret;
	}
}

int vcpu_run(struct vcpu *v)
{
	sigset_t saved;
	int ret;

	if (v->has_sigmask)
		sigprocmask(SIG_SETMASK, &v->sigmask, &saved);
	if (!v->chip.lapic)
		v->chip.cr8 = READ_ONCE(v->run->cr8) & 0xf;
	v->run->exit_reason = KVM_EXIT_UNKNOWN;
	fpu_swap_kvm_fpstate(&v->fpu, true);
	ret = run_loop(v);
	fpu_swap_kvm_fpstate(&v->fpu, false);
	v->run->cr8 = lapic_get_tpr(&v->chip);
	v->run->apic_base = v->chip.msr.apic_base;
	v->run->if_flag = !!(field_get(v, FIELD_RFLAGS) & X86_EFLAGS_IF);
	v->run->ready_for_interrupt_injection = events_can_interrupt(v);
	if (v->has_sigmask)
		sigprocmask(SIG_SETMASK, &saved, NULL);
	return ret;
}

void vcpu_skip_bytes(struct vcpu *v, u32 bytes)
{
	u64 old = field_get(v, FIELD_RIP), rip = old + bytes;
	u64 flags = field_get(v, FIELD_RFLAGS);

	/* Outside 64-bit code RIP has 32 bits. */
	if ((rip ^ old) >> 32 && !vcpu_64bit_code(v))
		rip = (u32)rip;
	field_put(v, FIELD_RIP, rip);
	/* The shadow of STI or MOV SS is over; RF was for this instruction (SDM 3B 17.3.1.1). */
	field_put(v, FIELD_BLOCKING,
		  field_get(v, FIELD_BLOCKING) &
		      ~(u64)(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS));
	field_put(v, FIELD_RFLAGS, flags & ~(u64)X86_EFLAGS_RF);
	/* Single step: the trap behind this instruction (SDM 3B 17.3.1.4), pending for the next
	 * entry. With BTF only branches trap, and no instruction that gets here is one. */
	if ((flags & X86_EFLAGS_TF) && !(vmcs_read(GUEST_IA32_DEBUGCTL) & DEBUGCTLMSR_BTF))
		field_put(v, FIELD_PENDING_DEBUG, field_get(v, FIELD_PENDING_DEBUG) | DR_STEP);
	debug_note_step(v);
}

void vcpu_skip(struct vcpu *v)
{
	vcpu_skip_bytes(v, vmcs_read(VM_EXIT_INSTRUCTION_LEN));
}

void vcpu_set_controls(struct vcpu *v, u32 mask, u32 bits)
{
	u32 wanted = (v->primary_controls & ~mask) | bits;

	if (wanted == v->primary_controls)
		return;
	vmcs_write(CPU_BASED_VM_EXEC_CONTROL, wanted);
	v->primary_controls = wanted;
}

bool vcpu_long_mode(struct vcpu *v)
{
	return field_get(v, FIELD_EFER) & EFER_LMA;
}

bool vcpu_64bit_code(struct vcpu *v)
{
	return vcpu_long_mode(v) && (vmcs_read(GUEST_CS_AR_BYTES) & VMX_AR_L_MASK);
}

/* SS.DPL is the CPL (SDM 3C 24.4.1), but in real mode, where it is what was loaded there. */
unsigned int vcpu_cpl(struct vcpu *v)
{
	if (!(control_get_cr0(v) & X86_CR0_PE))
		return 0;
	if (field_get(v, FIELD_RFLAGS) & X86_EFLAGS_VM)
		return 3;
	return VMX_AR_DPL(vmcs_read(GUEST_SS_AR_BYTES));
}

u64 vcpu_linear_rip(struct vcpu *v)
{
	u64 rip = field_get(v, FIELD_RIP);

	return vcpu_64bit_code(v) ? rip : (u32)(vmcs_read(GUEST_CS_BASE) + rip);
}

unsigned long vcpu_get_register(struct vcpu *v, int number)
{
	return number == RSP ? field_get(v, FIELD_RSP) : v->registers.r[number];
}

void vcpu_set_register(struct vcpu *v, int number, unsigned long value)
{
	if (number == RSP)
		field_put(v, FIELD_RSP, value);
	else
		v->registers.r[number] = value;
}
