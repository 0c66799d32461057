// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The ioctls of /dev/guise, of VMs and of vCPUs: KVM's numbers and structures (api.rst), for the
 * part of KVM that is here. Each checks what it is given, copies it in, calls the function that
 * does it, and copies out.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "guise.h"
#include "vmcs.h"
#include "engine/soft/irqchip/irqchip.h"

#define API_VERSION 12
#define RUN_PAGES   2 /* struct kvm_run, and what it points to for ports */
#define MSRS_MAX    256

static const struct {
	u16 capability;
	int value;
} capabilities[] = {
    {KVM_CAP_USER_MEMORY, 1},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1},
    {KVM_CAP_NR_MEMSLOTS, GUISE_SLOTS},
    {KVM_CAP_NR_VCPUS, GUISE_VCPUS},
    {KVM_CAP_MAX_VCPUS, GUISE_VCPUS},
    {KVM_CAP_MAX_VCPU_ID, GUISE_VCPUS},
    {KVM_CAP_CHECK_EXTENSION_VM, 1},
    {KVM_CAP_INTERNAL_ERROR_DATA, 1},
    {KVM_CAP_EXT_CPUID, 1},
    {KVM_CAP_MP_STATE, 1},
    {KVM_CAP_VCPU_EVENTS, 1},
    {KVM_CAP_INTR_SHADOW, 1},
    {KVM_CAP_DEBUGREGS, 1},
    {KVM_CAP_XSAVE, 1},
    {KVM_CAP_XCRS, 1},
    {KVM_CAP_USER_NMI, 1},
    {KVM_CAP_IMMEDIATE_EXIT, 1},
    {KVM_CAP_READONLY_MEM, 1},
    {KVM_CAP_IRQCHIP, 1},
    {KVM_CAP_IRQ_ROUTING, GUISE_LINES},
    {KVM_CAP_IRQ_INJECT_STATUS, 1},
    {KVM_CAP_PIT2, 1},
    {KVM_CAP_PIT_STATE2, 1},
    {KVM_CAP_SIGNAL_MSI, 1},
    {KVM_CAP_TSC_DEADLINE_TIMER, 1},
    {KVM_CAP_GET_TSC_KHZ, 1},
    {KVM_CAP_ADJUST_CLOCK, 1},
    {KVM_CAP_MCE, MCE_BANKS},
    {KVM_CAP_SET_GUEST_DEBUG, 1},
    {KVM_CAP_X86_ROBUST_SINGLESTEP, 1},
    /* Nothing to set: real mode runs as it is. The ioctls are taken and do nothing. */
    {KVM_CAP_SET_TSS_ADDR, 1},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, 1},
};

static int check_extension(unsigned long capability)
{
	if (capability == KVM_CAP_SET_GUEST_DEBUG2)
		return debug_flags();
	for (int i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (capabilities[i].capability == capability)
			return capabilities[i].value;
	return 0;
}

/* ---- vCPUs ---- */

static int move_msrs(struct vcpu *v, struct kvm_msrs __user *user, bool set)
{
	struct kvm_msrs head;
	u32 i;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nmsrs > MSRS_MAX)
		return -E2BIG;
	for (i = 0; i < head.nmsrs; i++) {
		struct kvm_msr_entry entry;

		if (copy_from_user(&entry, &user->entries[i], sizeof(entry)))
			return -EFAULT;
		if (set) {
			if (msr_set(v, entry.index, entry.data, false))
				break;
			continue;
		}
		if (msr_get(v, entry.index, &entry.data, false))
			break;
		if (copy_to_user(&user->entries[i], &entry, sizeof(entry)))
			return -EFAULT;
	}
	return i;
}

static int set_cpuid(struct vcpu *v, struct kvm_cpuid2 __user *user)
{
	struct kvm_cpuid2 head;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent > GUISE_CPUID)
		return -E2BIG;
	v->cpuid_count = 0;
	if (copy_from_user(v->cpuid, user->entries, head.nent * sizeof(v->cpuid[0])))
		return -EFAULT;
	v->cpuid_count = head.nent;
	cpuid_changed(v);
	return 0;
}

static int get_cpuid(struct vcpu *v, struct kvm_cpuid2 __user *user)
{
	struct kvm_cpuid2 head;
	u32 room;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	room = head.nent;
	head.nent = v->cpuid_count;
	if (copy_to_user(user, &head, sizeof(head)))
		return -EFAULT;
	if (room < v->cpuid_count)
		return -E2BIG;
	return copy_to_user(user->entries, v->cpuid, v->cpuid_count * sizeof(v->cpuid[0])) ? -EFAULT
											   : 0;
}

static int get_xsave(struct vcpu *v, void __user *user)
{
	struct kvm_xsave *area = kzalloc(sizeof(*area), GFP_KERNEL);
	int ret = 0;

	if (!area)
		return -ENOMEM;
	fpu_copy_guest_fpstate_to_uabi(&v->fpu, area, sizeof(*area), control_supported_xcr0(), 0);
	if (copy_to_user(user, area, sizeof(*area)))
		ret = -EFAULT;
	kfree(area);
	return ret;
}

static int set_xsave(struct vcpu *v, void __user *user)
{
	struct kvm_xsave *area = memdup_user(user, sizeof(*area));
	int ret;

	if (IS_ERR(area))
		return PTR_ERR(area);
	ret = fpu_copy_uabi_to_guest_fpstate(&v->fpu, area, control_supported_xcr0(), NULL);
	kfree(area);
	return ret;
}

static int get_xcrs(struct vcpu *v, void __user *user)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = v->xcr0}};

	return copy_to_user(user, &xcrs, sizeof(xcrs)) ? -EFAULT : 0;
}

static int set_xcrs(struct vcpu *v, void __user *user)
{
	struct kvm_xcrs xcrs;

	if (copy_from_user(&xcrs, user, sizeof(xcrs)))
		return -EFAULT;
	if (xcrs.flags || xcrs.nr_xcrs > KVM_MAX_XCRS)
		return -EINVAL;
	for (u32 i = 0; i < xcrs.nr_xcrs; i++) {
		if (xcrs.xcrs[i].xcr != 0)
			continue;
		if (!control_xcr0_valid(xcrs.xcrs[i].value))
			return -EINVAL;
		v->xcr0 = xcrs.xcrs[i].value;
	}
	return 0;
}

static int interrupt(struct vcpu *v, void __user *user)
{
	struct kvm_interrupt irq;

	if (copy_from_user(&irq, user, sizeof(irq)))
		return -EFAULT;
	if (v->chip.lapic)
		return -ENXIO;
	if (irq.irq > 255)
		return -EINVAL;
	if (v->events.irq >= 0)
		return -EEXIST;
	v->events.irq = irq.irq;
	return 0;
}

/* One is taken and one more held; while one is handled only that (SDM 3A 6.7.1). Past the LAPIC, as
 * KVM's. */
static int nmi(struct vcpu *v)
{
	u32 pending = READ_ONCE(v->chip.events.nmi);
	u32 limit = v->chip.events.nmi_masked ? 1 : 2;

	while (pending < limit &&
	       !__atomic_compare_exchange_n(&v->chip.events.nmi, &pending, pending + 1, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	vcpu_request(v, REQUEST_EVENTS);
	vcpu_kick(v);
	return 0;
}

static int set_mp_state(struct vcpu *v, void __user *user)
{
	struct kvm_mp_state state;

	if (copy_from_user(&state, user, sizeof(state)))
		return -EFAULT;
	/* Without an APIC there is nothing else to be (api.rst 4.39). */
	if (state.mp_state > KVM_MP_STATE_HALTED ||
	    (!v->chip.lapic && state.mp_state != KVM_MP_STATE_RUNNABLE))
		return -EINVAL;
	v->mp_state = state.mp_state;
	return 0;
}

static int translate(struct vcpu *v, void __user *user)
{
	struct kvm_translation tr;
	struct walk_fault fault;
	u64 gpa = ~0ull;
	int ret;

	if (copy_from_user(&tr, user, sizeof(tr)))
		return -EFAULT;
	down_read(&v->vm->memory_lock);
	ret = walk(v, tr.linear_address, ACCESS_QUIET, &gpa, &fault);
	up_read(&v->vm->memory_lock);
	tr.valid = !ret;
	tr.physical_address = gpa;
	tr.writeable = 1;
	tr.usermode = 0;
	return copy_to_user(user, &tr, sizeof(tr)) ? -EFAULT : 0;
}

static int set_signal_mask(struct vcpu *v, void __user *user)
{
	struct kvm_signal_mask head;

	v->has_sigmask = false;
	if (!user)
		return 0;
	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.len != sizeof(v->sigmask))
		return -EINVAL;
	if (copy_from_user(&v->sigmask, user + sizeof(head), sizeof(v->sigmask)))
		return -EFAULT;
	sigdelsetmask(&v->sigmask, sigmask(SIGKILL) | sigmask(SIGSTOP));
	v->has_sigmask = true;
	return 0;
}

/* A structure that goes one way: get fills it, set takes it. */
#define GET(type, call)                                                                            \
	({                                                                                         \
		type state;                                                                        \
		int ret = (call);                                                                  \
		if (!ret && copy_to_user(user, &state, sizeof(state)))                             \
			ret = -EFAULT;                                                             \
		ret;                                                                               \
	})
#define SET(type, call)                                                                            \
	({                                                                                         \
		type state;                                                                        \
		copy_from_user(&state, user, sizeof(state)) ? -EFAULT : (call);                    \
	})

/* The vCPU is locked and loaded. */
static long vcpu_command(struct vcpu *v, unsigned int command, void __user *user)
{
	switch (command) {
	case KVM_GET_REGS:
		return GET(struct kvm_regs, (state_get_regs(v, &state), 0));
	case KVM_SET_REGS:
		return SET(struct kvm_regs, (state_set_regs(v, &state), 0));
	case KVM_GET_SREGS:
		return GET(struct kvm_sregs, (state_get_sregs(v, &state), 0));
	case KVM_SET_SREGS:
		return SET(struct kvm_sregs, state_set_sregs(v, &state));
	case KVM_GET_FPU:
		return GET(struct kvm_fpu, state_get_fpu(v, &state));
	case KVM_SET_FPU:
		return SET(struct kvm_fpu, state_set_fpu(v, &state));
	case KVM_GET_VCPU_EVENTS:
		return GET(struct kvm_vcpu_events, (state_get_events(v, &state), 0));
	case KVM_SET_VCPU_EVENTS:
		return SET(struct kvm_vcpu_events, state_set_events(v, &state));
	case KVM_GET_DEBUGREGS:
		return GET(struct kvm_debugregs, (state_get_debugregs(v, &state), 0));
	case KVM_SET_DEBUGREGS:
		return SET(struct kvm_debugregs, state_set_debugregs(v, &state));
	case KVM_SET_GUEST_DEBUG:
		return SET(struct kvm_guest_debug, debug_set(v, &state));
	case KVM_GET_MP_STATE:
		return GET(struct kvm_mp_state, (state.mp_state = v->mp_state, 0));
	case KVM_SET_MP_STATE:
		return set_mp_state(v, user);
	case KVM_GET_XSAVE:
		return get_xsave(v, user);
	case KVM_SET_XSAVE:
		return set_xsave(v, user);
	case KVM_GET_XCRS:
		return get_xcrs(v, user);
	case KVM_SET_XCRS:
		return set_xcrs(v, user);
	case KVM_GET_MSRS:
		return move_msrs(v, user, false);
	case KVM_SET_MSRS:
		return move_msrs(v, user, true);
	case KVM_SET_CPUID2:
		return set_cpuid(v, user);
	case KVM_X86_SETUP_MCE:
		return SET(u64, mc_setup(v, state));
	case KVM_X86_SET_MCE:
		return SET(struct kvm_x86_mce, mc_report(v, &state));
	case KVM_GET_CPUID2:
		return get_cpuid(v, user);
	case KVM_GET_TSC_KHZ:
		return tsc_khz;
	case KVM_INTERRUPT:
		return interrupt(v, user);
	case KVM_GET_LAPIC:
		return GET(struct kvm_lapic_state, lapic_get(&v->chip, &state));
	case KVM_SET_LAPIC:
		return SET(struct kvm_lapic_state, lapic_set(&v->chip, &state));
	case KVM_SET_VAPIC_ADDR: /* none is there, and QEMU says so: address 0 */
		return SET(struct kvm_vapic_addr, state.vapic_addr ? -EINVAL : 0);
	case KVM_TRANSLATE:
		return translate(v, user);
	case KVM_SET_SIGNAL_MASK:
		return set_signal_mask(v, user);
	default:
		return -ENOTTY;
	}
}

static long vcpu_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vcpu *v = file->private_data;
	long ret;

	/* Guest memory is reached by the owner's addresses, which mean something else elsewhere. */
	if (v->vm->mm != current->mm)
		return -EIO;
	if (_IOC_TYPE(command) != KVMIO)
		return -ENOTTY;
	/* For a vCPU that runs, from another thread: it takes no lock. */
	if (command == KVM_NMI)
		return nmi(v);
	if (mutex_lock_killable(&v->lock))
		return -EINTR;
	vcpu_load(v);
	if (command == KVM_RUN)
		ret = argument ? -EINVAL : vcpu_run(v);
	else
		ret = vcpu_command(v, command, (void __user *)argument);
	vcpu_put(v);
	mutex_unlock(&v->lock);
	return ret;
}

static vm_fault_t run_fault(struct vm_fault *vmf)
{
	struct vcpu *v = vmf->vma->vm_file->private_data;

	if (vmf->pgoff >= RUN_PAGES)
		return VM_FAULT_SIGBUS;
	vmf->page = virt_to_page(vmf->pgoff ? v->port_data : (void *)v->run);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct run_operations = {.fault = run_fault};

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_pgoff + vma_pages(vma) > RUN_PAGES)
		return -EINVAL;
	vma->vm_ops = &run_operations;
	return 0;
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	struct vcpu *v = file->private_data;
	struct vm *vm = v->vm;

	mutex_lock(&vm->lock);
	vm->vcpus[v->id] = NULL;
	mutex_unlock(&vm->lock);
	vcpu_destroy(v);
	return 0;
}

static const struct file_operations vcpu_operations = {
    .owner = THIS_MODULE,
    .unlocked_ioctl = vcpu_ioctl,
    .mmap = vcpu_mmap,
    .release = vcpu_release,
    .llseek = noop_llseek,
};

/* ---- VMs ---- */

static int create_vcpu(struct vm *vm, unsigned long id)
{
	struct vcpu *v;
	int ret;

	if (id >= GUISE_VCPUS)
		return -EINVAL;
	id = array_index_nospec(id, GUISE_VCPUS);
	mutex_lock(&vm->lock);
	if (vm->vcpus[id]) {
		ret = -EEXIST;
		goto out;
	}
	v = vcpu_create(vm, id);
	if (IS_ERR(v)) {
		ret = PTR_ERR(v);
		goto out;
	}
	vm->vcpus[id] = v;
	ret = anon_inode_getfd("guise-vcpu", &vcpu_operations, v, O_RDWR | O_CLOEXEC);
	if (ret < 0) {
		vm->vcpus[id] = NULL;
		vcpu_destroy(v);
	}
out:
	mutex_unlock(&vm->lock);
	return ret;
}

static int create_chips(struct vm *vm)
{
	int ret;

	mutex_lock(&vm->lock);
	ret = chips_create(vm);
	mutex_unlock(&vm->lock);
	return ret;
}

static int get_irqchip(struct vm *vm, void __user *user)
{
	struct kvm_irqchip state;
	int ret;

	if (copy_from_user(&state, user, sizeof(state)))
		return -EFAULT;
	memset(&state.chip, 0, sizeof(state.chip));
	ret = irqchip_get(&vm->chips, &state);
	if (!ret && copy_to_user(user, &state, sizeof(state)))
		ret = -EFAULT;
	return ret;
}

/* Every interrupt is taken; none is merged with one that waits as far as the owner need know. */
static int irq_line_status(struct vm *vm, void __user *user)
{
	struct kvm_irq_level line;
	int ret;

	if (copy_from_user(&line, user, sizeof(line)))
		return -EFAULT;
	ret = routes_line(vm, line.irq, !!line.level);
	if (ret)
		return ret;
	line.status = 1;
	return copy_to_user(user, &line, sizeof(line)) ? -EFAULT : 0;
}

static int get_clock(struct vm *vm, struct kvm_clock_data *clock)
{
	memset(clock, 0, sizeof(*clock));
	clock->clock = clock_now() + READ_ONCE(vm->clock_offset);
	return 0;
}

static int set_clock(struct vm *vm, const struct kvm_clock_data *clock)
{
	if (clock->flags & ~(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC))
		return -EINVAL;
	WRITE_ONCE(vm->clock_offset, clock->clock - clock_now());
	return 0;
}

static long vm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct vm *vm = file->private_data;
	void __user *user = (void __user *)argument;

	if (vm->mm != current->mm)
		return -EIO;
	switch (command) {
	case KVM_CHECK_EXTENSION:
		return check_extension(argument);
	case KVM_CREATE_VCPU:
		return create_vcpu(vm, argument);
	case KVM_SET_USER_MEMORY_REGION:
		return SET(struct kvm_userspace_memory_region, vm_set_memory(vm, &state));
	case KVM_GET_DIRTY_LOG:
		return SET(struct kvm_dirty_log, dirty_get_log(vm, &state));
	case KVM_SET_TSS_ADDR:
		return 0;
	case KVM_CREATE_IRQCHIP:
		return create_chips(vm);
	case KVM_CREATE_PIT2:
		return SET(struct kvm_pit_config, chips_create_pit(vm, &state));
	case KVM_IRQ_LINE:
		return SET(struct kvm_irq_level, routes_line(vm, state.irq, !!state.level));
	case KVM_IRQ_LINE_STATUS:
		return irq_line_status(vm, user);
	case KVM_SET_GSI_ROUTING:
		return routes_set(vm, user);
	case KVM_SIGNAL_MSI:
		return SET(struct kvm_msi, irqchip_msi(&vm->chips, &state));
	case KVM_GET_IRQCHIP:
		return get_irqchip(vm, user);
	case KVM_SET_IRQCHIP:
		return SET(struct kvm_irqchip, irqchip_set(&vm->chips, &state));
	case KVM_GET_PIT2:
		return GET(struct kvm_pit_state2, chips_get_pit(vm, &state));
	case KVM_SET_PIT2:
		return SET(struct kvm_pit_state2, pit_set(&vm->chips, &state));
	case KVM_GET_CLOCK:
		return GET(struct kvm_clock_data, get_clock(vm, &state));
	case KVM_SET_CLOCK:
		return SET(struct kvm_clock_data, set_clock(vm, &state));
	case KVM_SET_IDENTITY_MAP_ADDR:
		return SET(u64, 0);
	default:
		return -ENOTTY;
	}
}

static int vm_release(struct inode *inode, struct file *file)
{
	vm_put(file->private_data);
	return 0;
}

static const struct file_operations vm_operations = {
    .owner = THIS_MODULE,
    .unlocked_ioctl = vm_ioctl,
    .release = vm_release,
    .llseek = noop_llseek,
};

/* ---- /dev/guise ---- */

static int create_vm(unsigned long type)
{
	struct vm *vm;
	int fd;

	if (type)
		return -EINVAL;
	vm = vm_create();
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	fd = anon_inode_getfd("guise-vm", &vm_operations, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		vm_put(vm);
	return fd;
}

static int supported_cpuid(struct kvm_cpuid2 __user *user)
{
	struct kvm_cpuid_entry2 *entries;
	struct kvm_cpuid2 head;
	int ret;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	entries = kcalloc(GUISE_CPUID, sizeof(*entries), GFP_KERNEL);
	if (!entries)
		return -ENOMEM;
	ret = cpuid_supported(entries, min_t(u32, head.nent, GUISE_CPUID), &head.nent);
	if (copy_to_user(user, &head, sizeof(head)))
		ret = -EFAULT;
	if (!ret && copy_to_user(user->entries, entries, head.nent * sizeof(*entries)))
		ret = -EFAULT;
	kfree(entries);
	return ret;
}

static int msr_index_list(struct kvm_msr_list __user *user)
{
	struct kvm_msr_list head;
	u32 indices[MSR_LIST_MAX], room;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	room = head.nmsrs;
	head.nmsrs = msr_list(indices);
	if (copy_to_user(user, &head, sizeof(head)))
		return -EFAULT;
	if (room < head.nmsrs)
		return -E2BIG;
	return copy_to_user(user->indices, indices, head.nmsrs * sizeof(indices[0])) ? -EFAULT : 0;
}

static long system_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case KVM_GET_API_VERSION:
		return argument ? -EINVAL : API_VERSION;
	case KVM_CREATE_VM:
		return create_vm(argument);
	case KVM_CHECK_EXTENSION:
		return check_extension(argument);
	case KVM_GET_VCPU_MMAP_SIZE:
		return argument ? -EINVAL : RUN_PAGES * PAGE_SIZE;
	case KVM_X86_GET_MCE_CAP_SUPPORTED: {
		void __user *user = (void __user *)argument;

		return GET(u64, (state = MCE_CAPABILITIES, 0));
	}
	case KVM_GET_SUPPORTED_CPUID:
		return supported_cpuid((void __user *)argument);
	case KVM_GET_MSR_INDEX_LIST:
		return msr_index_list((void __user *)argument);
	default:
		return -ENOTTY;
	}
}

const struct file_operations system_operations = {
    .owner = THIS_MODULE,
    .unlocked_ioctl = system_ioctl,
    .llseek = noop_llseek,
};
