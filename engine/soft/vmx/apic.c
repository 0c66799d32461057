/* The virtual APIC: priorities, EOIs, interrupts to be delivered and posted. SDM 3C 30.1, 30.2,
 * 30.6. Inside. */
#include "engine/soft/vmx/apic.h"

#include "debug/trace.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"

/* Posted-interrupt descriptor, table 30-1: 255:0 requests, 256 outstanding notification */
#define DESCRIPTOR_REQUESTS    4u /* quadwords */
#define DESCRIPTOR_FLAGS       32u
#define DESCRIPTOR_OUTSTANDING BIT(0)

/* ---- vectors: 256 bits in eight words of the page ---- */

#define VECTOR_WORDS 8u

static u32 vector_word(u32 registers, u32 vector)
{
	return registers + vector / 32 * 16;
}

static void set_vector(struct soft_vcpu *v, u32 registers, u32 vector)
{
	u32 word = vector_word(registers, vector);

	virtual_apic_set(v, word, virtual_apic_get(v, word) | (u32)BIT(vector % 32));
}

static void clear_vector(struct soft_vcpu *v, u32 registers, u32 vector)
{
	u32 word = vector_word(registers, vector);

	virtual_apic_set(v, word, virtual_apic_get(v, word) & ~(u32)BIT(vector % 32));
}

static u32 highest_bit(u64 bits)
{
	return 63 - (u32)__builtin_clzll(bits);
}

/* 0: none is set. */
static u32 highest_vector(struct soft_vcpu *v, u32 registers)
{
	for (u32 n = VECTOR_WORDS; n-- > 0;) {
		u32 word = virtual_apic_get(v, registers + n * 16);
		if (word)
			return n * 32 + highest_bit(word);
	}
	return 0;
}

/* ---- guest interrupt status: the highest vector requested, and the one in service ---- */

static u32 requested(const struct soft_vcpu *v)
{
	return STATUS_RVI(vmx_get(v, VMX_GUEST_INTERRUPT_STATUS));
}

static u32 in_service(const struct soft_vcpu *v)
{
	return STATUS_SVI(vmx_get(v, VMX_GUEST_INTERRUPT_STATUS));
}

static void set_status(struct soft_vcpu *v, u32 rvi, u32 svi)
{
	vmx_set(v, VMX_GUEST_INTERRUPT_STATUS, rvi | svi << 8);
}

static void request(struct soft_vcpu *v, u32 vector)
{
	if (vector > requested(v))
		set_status(v, vector, in_service(v));
}

/* Priority class of a vector or priority. */
static u32 class_of(u32 vector)
{
	return vector >> 4 & 0xf;
}

static bool delivers_interrupts(const struct soft_vcpu *v)
{
	return vmx_cpu2(v, CPU2_VIRTUAL_INTERRUPTS);
}

/* 30.2.1 */
static void evaluate_pending(struct soft_vcpu *v)
{
	bool recognized = !vmx_cpu(v, CPU_INTERRUPT_WINDOW) &&
			  class_of(requested(v)) > class_of(virtual_apic_get(v, VIRTUAL_PPR));

	vmx_set_virtual_interrupt(v, recognized);
}

/* 30.1.3 */
static void virtualize_ppr(struct soft_vcpu *v)
{
	u32 tpr = virtual_apic_get(v, VIRTUAL_TPR) & 0xff, svi = in_service(v);

	virtual_apic_set(v, VIRTUAL_PPR, class_of(tpr) >= class_of(svi) ? tpr : svi & 0xf0);
}

/* Trap-like: behind the instruction, what debug traps it has caused still pending (28.3.4). */
static _Noreturn void leave(struct soft_vcpu *v, u32 reason, u32 qualification)
{
	vmx_exit(v, &(struct vmx_exit){
			.reason = reason, .qualification = qualification, .keeps_debug = true});
}

/* 30.1.2 */
static void virtualize_tpr(struct soft_vcpu *v)
{
	if (delivers_interrupts(v)) {
		virtualize_ppr(v);
		evaluate_pending(v);
	} else if (class_of(virtual_apic_get(v, VIRTUAL_TPR)) < vmx_get(v, VMX_TPR_THRESHOLD)) {
		leave(v, REASON_TPR_BELOW_THRESHOLD, 0);
	}
}

/* 30.1.4 */
static void virtualize_eoi(struct soft_vcpu *v)
{
	u32 vector = in_service(v);

	clear_vector(v, VIRTUAL_ISR, vector);
	set_status(v, requested(v), highest_vector(v, VIRTUAL_ISR));
	virtualize_ppr(v);
	if (vmx_get(v, VMX_EOI_EXIT_BITMAP0 + vector / 64) >> vector % 64 & 1)
		leave(v, REASON_VIRTUALIZED_EOI, vector);
	evaluate_pending(v);
}

/* 30.1.5 */
static void virtualize_self_ipi(struct soft_vcpu *v, u8 vector)
{
	set_vector(v, VIRTUAL_IRR, vector);
	request(v, vector);
	evaluate_pending(v);
}

/* ICR, SDM 3A figure 10-12: of no account where shorthand, mode and trigger are right */
#define ICR_VECTOR	 0xffu
#define ICR_LOGICAL	 BIT(11)
#define ICR_LEVEL_ASSERT BIT(14)
#define ICR_SELF	 BIT(18) /* 19:18, shorthand */

/* 30.4.3.2: reserved bits and delivery status 0, shorthand "self", edge, fixed, no vector below 16.
 */
static bool is_self_ipi(u32 icr)
{
	return (icr & ~(ICR_VECTOR | ICR_LOGICAL | ICR_LEVEL_ASSERT)) == ICR_SELF && class_of(icr);
}

/* 30.4.3.2; for what WRMSR has written, 30.5 */
void vmx_emulate_apic_write(struct soft_vcpu *v)
{
	u32 offset = APIC_WRITTEN_OFFSET(v->vmx.apic_written);
	bool delivers = delivers_interrupts(v);

	v->vmx.apic_written = 0;
	switch (offset) {
	case VIRTUAL_TPR:
		virtual_apic_set(v, VIRTUAL_TPR, virtual_apic_get(v, VIRTUAL_TPR) & 0xff);
		virtualize_tpr(v);
		return;
	case VIRTUAL_EOI:
		if (!delivers)
			break;
		virtual_apic_set(v, VIRTUAL_EOI, 0);
		virtualize_eoi(v);
		return;
	case VIRTUAL_ICR_LOW: {
		u32 icr = virtual_apic_get(v, VIRTUAL_ICR_LOW);
		if (!delivers || !is_self_ipi(icr))
			break;
		virtualize_self_ipi(v, (u8)icr);
		return;
	}
	case VIRTUAL_ICR_HIGH ... VIRTUAL_ICR_HIGH + 3:
		virtual_apic_set(v, VIRTUAL_ICR_HIGH,
				 virtual_apic_get(v, VIRTUAL_ICR_HIGH) & 0xff000000);
		return;
	case VIRTUAL_SELF_IPI: {
		u8 vector = (u8)virtual_apic_get(v, VIRTUAL_SELF_IPI);
		if (!class_of(vector))
			break;
		virtualize_self_ipi(v, vector);
		return;
	}
	default:
		break;
	}
	leave(v, REASON_APIC_WRITE, offset);
}

/* 27.3.2.5 */
void vmx_virtual_interrupts_enter(struct soft_vcpu *v)
{
	vmx_set_virtual_interrupt(v, false);
	if (likely(!delivers_interrupts(v)))
		return;
	virtualize_ppr(v);
	evaluate_pending(v);
}

/* 30.2.2 */
u8 vmx_take_virtual_interrupt(struct soft_vcpu *v)
{
	u32 vector = requested(v);

	set_vector(v, VIRTUAL_ISR, vector);
	virtual_apic_set(v, VIRTUAL_PPR, vector & 0xf0);
	clear_vector(v, VIRTUAL_IRR, vector);
	set_status(v, highest_vector(v, VIRTUAL_IRR), vector);
	vmx_set_virtual_interrupt(v, false);
	trace_gp(vmx, 2, "vcpu %u: virtual interrupt %#x", v->base.id, vector);
	return (u8)vector;
}

/* 64 vectors from 64 * @n on. */
static void take_requests(struct soft_vcpu *v, u32 n, u64 bits)
{
	u32 word = VIRTUAL_IRR + n * 32;

	if (!bits)
		return;
	virtual_apic_set(v, word, virtual_apic_get(v, word) | (u32)bits);
	virtual_apic_set(v, word + 16, virtual_apic_get(v, word + 16) | (u32)(bits >> 32));
	request(v, n * 64 + highest_bit(bits));
}

void vmx_process_posted_interrupts(struct soft_vcpu *v)
{
	u64 descriptor = vmx_get(v, VMX_POSTED_INTERRUPT_DESCRIPTOR);

	trace_gp(vmx, 2, "vcpu %u: posted interrupts", v->base.id);
	phys_fetch_and(v, descriptor + DESCRIPTOR_FLAGS, ~DESCRIPTOR_OUTSTANDING);
	if (v->lapic)
		lapic_eoi(v);
	for (u32 n = 0; n < DESCRIPTOR_REQUESTS; n++)
		take_requests(v, n, phys_fetch_and(v, descriptor + n * 8, 0));
	evaluate_pending(v);
	/* Its arrival wakes nobody; what it has brought may. */
	if (v->vmx.activity != ACTIVITY_ACTIVE)
		v->mp_state = KVM_MP_STATE_HALTED;
}
