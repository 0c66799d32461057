/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Guise's hypervisor: what its files know of each other.
 *
 *	module.c	loading, unloading, /dev/guise
 *	cpu.c		VMXON and VMXOFF
 *	vmcs.c		control structures and processors; vmcs.h: the instructions
 *	api.c		ioctls
 *
 *	vm.c		a VM: its life, memory slots
 *	ept.c		guest-physical to host-physical; dirty.c: which pages the guest has written
 *	memory.c	guest memory as the kernel reads it
 *	walk.c		the guest's own page tables
 *	chips.c		interrupt chips; routes.c: which line leads where
 *
 *	vcpu.c		a vCPU's life, the run loop
 *	host.c		host state that VMX does not switch; switch.S: the world switch
 *	fields.c	what of the guest is in the VMCS, read and written as rarely as can be
 *	state.c		registers for the owner
 *
 *	exits.c		why the guest was left, and what then
 *	events.c	exceptions, interrupts, NMIs into the guest
 *	io.c		ports
 *	decode.c	instructions that touch devices' memory; mmio.c: what they do
 *	task.c		task switches
 *	control.c	control registers, EFER, XCR0
 *	debug.c		debug registers; the owner's debugger
 *	msr.c, cpuid.c, mce.c (machine checks for guests)
 *
 * "SDM" is Intel's Software Developer's Manual, by volume and section; api.rst is
 * Documentation/virt/kvm/api.rst of the Linux kernel.
 *
 * Locks, in the order in which they are taken:
 *	vcpu->lock		(mutex) a vCPU's state; held through KVM_RUN
 *	vm->memory_lock		(rw_semaphore) memory slots; vCPUs read
 *	vm->ept_lock		(mutex) EPT tables
 *	mm->mmap_lock		pinning, accounting, faults on the owner's memory
 * vm->lock (mutex) guards the list of vCPUs and is taken alone or before the others.
 */
#ifndef GUISE_HYPERVISOR_H
#define GUISE_HYPERVISOR_H

#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/signal_types.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/trapnr.h>
#include <asm/vmx.h>
#include <uapi/asm/vmx.h>

#include "engine/soft/vcpu.h"
#include "switch.h"

#define GUISE_SLOTS 32
#define GUISE_VCPUS 64
#define GUISE_CPUID 128	 /* entries */
#define GUISE_LINES 1024 /* of interrupts */

/* ---- vmcs.c ---- */

/* A VMCS region (SDM 3C 24.2): its first two words are the software's, the rest the processor's. */
struct vmcs {
	u32 revision;
	u32 abort;
	u8 data[];
};

/* A VMCS and where it is. "Active" on a processor: it has data of it (SDM 3C 24.1). */
struct vmcs_place {
	struct vmcs *vmcs;
	int cpu;		    /* the processor where it is active, or -1 */
	bool launched;		    /* VMRESUME, not VMLAUNCH */
	struct list_head active_on; /* in the list of that processor */
};

/* What goes into every VMCS: the controls, as wanted and as this processor allows them. */
struct vmcs_controls {
	u32 revision;
	u32 pin, primary, secondary, exit, entry;
	bool vpid; /* and INVVPID of a single context */
	bool step; /* the monitor trap flag */
	bool ept_large;
	bool ept_large_nx;    /* no instruction may be fetched by a large mapping */
	u32 preemption_timer; /* ticks after which the guest is left; 0: the timer is off */
};

extern struct vmcs_controls vmcs_controls;

/* @slice_us: see module.c. */
int vmcs_setup_controls(unsigned int slice_us);
void vmcs_cpu_init(int cpu);
struct vmcs *vmcs_alloc(int node);
int vmcs_place_init(struct vmcs_place *place);
void vmcs_place_free(struct vmcs_place *place);
/* Makes it this processor's current one; true if it was active on none or another before.
 * Preemption is off. */
bool vmcs_load(struct vmcs_place *place);
/* VMCLEARs everything that is active on this processor. Interrupts are off. */
void vmcs_clear_all_here(void);

/* ---- cpu.c ---- */
int cpu_enable_all(void);
void cpu_disable_all(void);
/* Whether this processor is in VMX operation. Preemption is off. */
bool cpu_enabled(void);

/* ---- vm.c ---- */
struct vcpu;

struct memory_slot {
	u32 id;
	u32 flags;
	u64 gpa, bytes; /* multiples of a page */
	unsigned long hva;
	unsigned long *dirty; /* a bit a page, with KVM_MEM_LOG_DIRTY_PAGES */
};

struct vm {
	refcount_t refs; /* its file and its vCPUs' */
	struct mm_struct *mm;
	struct mutex lock;
	struct vcpu *vcpus[GUISE_VCPUS]; /* by id */

	struct rw_semaphore memory_lock;
	struct memory_slot slots[GUISE_SLOTS];
	u32 slot_count;

	struct mutex ept_lock;
	u64 *ept_root;
	u64 eptp;
	unsigned long pinned; /* pages, as accounted to mm */

	struct soft_vm chips;
	struct kvm_msi *messages; /* of the lines that lead to one; lock. NULL: none does */
	s64 clock_offset;	  /* KVM_GET_CLOCK's, to CLOCK_MONOTONIC; ns */
};

struct vm *vm_create(void);
void vm_get(struct vm *vm);
void vm_put(struct vm *vm);
struct memory_slot *vm_find_slot(struct vm *vm, u32 id); /* memory_lock is held; NULL: none */
int vm_set_memory(struct vm *vm, const struct kvm_userspace_memory_region *region);

/* ---- ept.c ---- */
int ept_create(struct vm *vm);
void ept_destroy(struct vm *vm);
/* Maps the page at @gpa, with at least the rights @wanted (VMX_EPT_..._MASK), which @slot gives.
 * memory_lock is held. */
int ept_map(struct vm *vm, const struct memory_slot *slot, u64 gpa, u64 wanted);
/* Takes the right to write from what is mapped there, and makes it small pages. Nothing may be
 * written any more when ept_flush() is back. memory_lock is held for writing. -ENOMEM: some of it
 * is as it was. */
int ept_protect(struct vm *vm, u64 gpa, u64 bytes);
void ept_flush(struct vm *vm);
/* Unmaps and unpins. memory_lock is held for writing. */
void ept_unmap(struct vm *vm, u64 gpa, u64 bytes);

/* ---- dirty.c ---- */
/* Logging begins and ends; memory_lock is held for writing. 0 or -ENOMEM. */
int dirty_start(struct vm *vm, struct memory_slot *slot);
void dirty_stop(struct memory_slot *slot);
/* The page at @gpa is being written. memory_lock is held. */
void dirty_mark(const struct memory_slot *slot, u64 gpa);
int dirty_get_log(struct vm *vm, const struct kvm_dirty_log *log);

/* ---- memory.c ---- */
/* memory_lock is held. */
const struct memory_slot *memory_find(struct vm *vm, u64 gpa);
/* Whether it is in a slot that may be written: writes to others are the owner's business. */
bool memory_writable(struct vm *vm, u64 gpa);
/* Guest-physical memory that lies in slots; -EFAULT if not all of it does. The owner's process
 * only. */
int memory_read(struct vm *vm, u64 gpa, void *data, u32 bytes);
int memory_write(struct vm *vm, u64 gpa, const void *data, u32 bytes);
/* Replaces an entry of the guest's page tables if it is still @old. -EAGAIN: it is not. */
int memory_exchange(struct vm *vm, u64 gpa, u64 old, u64 new, bool wide);

/* ---- walk.c ---- */

/* An access as page tables judge it: the bits of a page fault's error code (SDM 3A 4.7). */
#define ACCESS_WRITE BIT(1)
#define ACCESS_USER  BIT(2)
#define ACCESS_FETCH BIT(4)
#define ACCESS_QUIET BIT(31) /* sets no accessed and dirty bits */

struct walk_fault {
	u32 error_code;
	u64 linear;
};

/* Linear to guest-physical. 0, -EFAULT with @fault filled in, or another error of the host. */
int walk(struct vcpu *v, u64 linear, u32 access, u64 *gpa, struct walk_fault *fault);
/* Guest-linear memory, across pages. Errors as walk(); -ENXIO: no slot there, a device perhaps. */
int linear_read(struct vcpu *v, u64 linear, void *data, u32 bytes, u32 access,
		struct walk_fault *fault);
int linear_write(struct vcpu *v, u64 linear, const void *data, u32 bytes, u32 access,
		 struct walk_fault *fault);

/* ---- chips.c ---- */
int chips_create(struct vm *vm);
int chips_create_pit(struct vm *vm, const struct kvm_pit_config *config);
int chips_get_pit(struct vm *vm, struct kvm_pit_state2 *state);
void chips_destroy(struct vm *vm);
int chips_create_vcpu(struct vcpu *v);
void chips_destroy_vcpu(struct vcpu *v);
void chips_run_timers(struct vcpu *v);
/* INIT and SIPI. The vCPU is loaded. */
void chips_take_events(struct vcpu *v);

/* ---- routes.c ---- */
#define ROUTES_MAX 4096 /* in one KVM_SET_GSI_ROUTING */
int routes_set(struct vm *vm, const struct kvm_irq_routing __user *user);
/* KVM_IRQ_LINE. */
int routes_line(struct vm *vm, u32 line, int level);

/* ---- switch.S ---- */
struct guest_registers {
	unsigned long r[16]; /* not r[RSP]: see fields.c */
	unsigned long host_rsp;
};
static_assert(offsetof(struct guest_registers, host_rsp) == SWITCH_HOST_RSP);

int world_switch(struct guest_registers *guest, bool launched);
extern const char world_switch_exit[];

/* ---- fields.c ---- */
enum field {
	FIELD_RIP,
	FIELD_RSP,
	FIELD_RFLAGS,
	FIELD_BLOCKING, /* GUEST_INTR_STATE_... */
	FIELD_PENDING_DEBUG,
	FIELD_EFER,
	FIELD_CR0,
	FIELD_CR4,
	FIELD_COUNT
};

struct fields {
	u64 value[FIELD_COUNT];
	u32 known, changed; /* BIT(FIELD_...) */
};

u64 field_get(struct vcpu *v, enum field field);
void field_put(struct vcpu *v, enum field field, u64 value);
void fields_write_back(struct vcpu *v); /* before an entry */
void fields_forget(struct vcpu *v);	/* after an exit */

/* ---- host.c ---- */

/* MSRs that VMX does not switch and that the kernel does not need before it returns to user mode.
 * They change hands when the vCPU gets and loses the processor, not at each exit. */
enum lazy_msr {
	LAZY_KERNEL_GS_BASE,
	LAZY_STAR,
	LAZY_LSTAR,
	LAZY_CSTAR,
	LAZY_SYSCALL_MASK,
	LAZY_TSC_AUX,
	LAZY_COUNT
};
extern const u32 lazy_msrs[LAZY_COUNT];

struct host_state {
	bool loaded; /* the guest's lazy MSRs are the processor's */
	u16 ds, es, fs, gs, ldt;
	u64 msr[LAZY_COUNT];
	u64 xcr0;
	unsigned long cr3, cr4; /* as last written to the VMCS */
	u64 fs_base, debugctl;
};

/* At loading: which mitigations this processor needs. */
void host_setup(void);
void host_init_vmcs(void);
/* Another vCPU than the last one gets this processor. */
void host_other_guest(void);
void host_moved(struct vcpu *v);
void host_to_guest(struct vcpu *v);
void host_from_guest(struct vcpu *v);
void host_before_entry(struct vcpu *v);
void host_after_exit(struct vcpu *v);

/* ---- events.c ---- */
struct events {
	/* One event is on its way into the guest: written to the VMCS at the next entry, and again
	 * if an exit comes in the middle of its delivery. */
	struct {
		bool valid;
		u8 type; /* INTR_TYPE_... */
		u8 vector;
		bool has_error;
		u32 error;
		u32 length; /* of the instruction, for software interrupts */
	} current_event;
	/* An exception that C code has raised, not yet on its way. */
	struct {
		bool valid;
		u8 type, vector;
		bool has_error;
		u32 error;
		u32 length;
	} exception;
	bool triple_fault;
	bool armed; /* the VMCS has an event to inject */
	int irq;    /* KVM_INTERRUPT's vector, not yet on its way, or -1 */
};

void events_init(struct vcpu *v);
/* The exception @vector is raised by the instruction at RIP. */
void raise(struct vcpu *v, u8 vector);
void raise_error(struct vcpu *v, u8 vector, u32 error);
void raise_page_fault(struct vcpu *v, const struct walk_fault *fault);
/* INT3, INT1: a trap of an instruction of @length bytes; @type: INTR_TYPE_... */
void raise_software(struct vcpu *v, u32 type, u8 vector, u32 length);
bool events_exception_waits(const struct vcpu *v);
/* The guest ends, as by a triple fault, before its next instruction. */
void events_shut_down(struct vcpu *v);
/* Before an entry: chooses what goes in. 0, or 1 if there is no way on (a triple fault). */
int events_inject(struct vcpu *v);
/* After an exit: takes back what was not delivered. */
void events_take_back(struct vcpu *v);
bool events_can_interrupt(struct vcpu *v);
/* Whether what waits ends HLT. */
bool events_wake(struct vcpu *v);

/* ---- decode.c ---- */
struct instruction {
	u8 bytes[15];
	u8 fetched; /* bytes there */
	u8 length;  /* of the instruction, once decoded */
	u8 pos;

	u8 rex;
	u8 operand_bytes, address_bytes;
	bool rep, repne;
	int segment; /* override: number of the segment register, or -1 */
	bool two_byte;
	u8 opcode;
	u8 modrm;
	bool has_modrm;
	u64 address; /* effective address of the memory operand, without segment base */
	int address_segment;
	u64 immediate;
};

/* Fetches and decodes the instruction at RIP. 0; 1: a fault was raised; -EINVAL: not one that this
 * decoder knows; other errors are the host's. */
int decode_here(struct vcpu *v, struct instruction *in);

/* ---- io.c, mmio.c: what the monitor is asked for ---- */
struct io_request {
	enum { IO_NONE, IO_PORT_IN, IO_MMIO_READ, IO_MMIO_WRITE } kind;
	u8 size;
	u16 port;
	u32 count; /* of a string */
	bool string;
	u64 linear; /* of the string's next element */
	u8 address_bytes;
	/* mmio.c: an access of more than 8 bytes or across pages goes out in pieces */
	u64 gpa;
	u8 data[8];
	u32 length, done; /* bytes */
};

int exit_io(struct vcpu *v);
int io_complete(struct vcpu *v);
int mmio_access(struct vcpu *v, u64 gpa);
int mmio_complete(struct vcpu *v);

/* ---- task.c ---- */
int exit_task_switch(struct vcpu *v);

/* ---- control.c ---- */
int exit_cr(struct vcpu *v);
int exit_xsetbv(struct vcpu *v);
void control_update_masks(struct vcpu *v);
bool control_cr0_valid(u64 cr0);
bool control_cr4_valid(struct vcpu *v, u64 cr4);
bool control_efer_valid(struct vcpu *v, u64 efer);
bool control_xcr0_valid(u64 xcr0);
u64 control_supported_xcr0(void);
u64 control_get_cr0(struct vcpu *v);
u64 control_get_cr4(struct vcpu *v);
void control_put_cr0(struct vcpu *v, u64 cr0);
void control_put_cr4(struct vcpu *v, u64 cr4);
void control_put_efer(struct vcpu *v, u64 efer);
/* With PAE paging, reads the four page-directory-pointer entries into the VMCS. False: they may not
 * be so, #GP where an instruction wants it. memory_lock is held. */
bool control_load_pdptrs(struct vcpu *v);

/* ---- debug.c ---- */
#define DR7_FIXED_1 0x400 /* SDM 3B figure 17-1 */
/*
 * #MC is the host's. #AC and #DB: a guest whose handlers for them raise them again would keep the
 * processor in their delivery for ever, where not even an NMI comes in; so they go through here.
 * All others are the guest's own.
 */
#define EXCEPTIONS_ALWAYS (BIT(X86_TRAP_MC) | BIT(X86_TRAP_AC) | BIT(X86_TRAP_DB))

struct debugger {
	u32 control; /* KVM_GUESTDBG_... */
	unsigned long dr[4], dr7;
	const unsigned long *active; /* DR0 to DR3 for the next entry, or NULL */
	u32 int3_length;	     /* of the breakpoint that was reported last */
	bool stepped;		     /* to be reported */
};

void debug_init(struct vcpu *v);
/* Which flags of KVM_SET_GUEST_DEBUG there are on this processor. */
u32 debug_flags(void);
/* KVM_SET_GUEST_DEBUG. */
int debug_set(struct vcpu *v, const struct kvm_guest_debug *debug);
void debug_put_dr6(struct vcpu *v, u64 dr6);
void debug_put_dr7(struct vcpu *v, u64 dr7);
void debug_before_entry(struct vcpu *v);
void debug_after_exit(struct vcpu *v);
/* An instruction has been carried out. */
void debug_note_step(struct vcpu *v);
/* A port has been read or written. */
void debug_port_used(struct vcpu *v, u16 port, u32 bytes);
/* Whether there is a step to report; then vcpu->run does. */
bool debug_stop_after_step(struct vcpu *v);
/* #DB for the guest, with bits @hit of DR6. */
void debug_raise(struct vcpu *v, u64 hit);
/* Exits by #DB, of which @info is the interruption information, by #BP and by the monitor trap
 * flag. */
int debug_trap(struct vcpu *v, u32 info);
int debug_breakpoint(struct vcpu *v);
int exit_monitor_trap(struct vcpu *v);
int exit_dr(struct vcpu *v);

/* ---- msr.c ---- */
#define MSR_LIST_MAX 80
/* KVM_GET_MSR_INDEX_LIST: fills @indices, MSR_LIST_MAX of them, and returns how many there are. */
u32 msr_list(u32 *indices);
int msr_setup(void);
void msr_cleanup(void);
phys_addr_t msr_bitmap(void);
void msr_reset(struct vcpu *v);
/* @from_guest: rules that bind the guest only. 0 or -EINVAL (for the guest: #GP). */
int msr_get(struct vcpu *v, u32 index, u64 *value, bool from_guest);
int msr_set(struct vcpu *v, u32 index, u64 value, bool from_guest);
int exit_rdmsr(struct vcpu *v);
int exit_wrmsr(struct vcpu *v);

/* ---- mce.c ---- */
#define MCE_BANKS 32
/* Of MCG_CAP, besides the count: MCG_CTL, and reports that tell whether to go on is possible. */
#define MCE_CAPABILITIES (BIT_ULL(8) | BIT_ULL(24))

struct machine_checks {
	u64 cap, status, control; /* MCG_... */
	u64 banks[MCE_BANKS][4];  /* CTL, STATUS, ADDR, MISC */
};

/* KVM_X86_SETUP_MCE, KVM_X86_SET_MCE. */
int mc_setup(struct vcpu *v, u64 cap);
int mc_report(struct vcpu *v, const struct kvm_x86_mce *mce);
void mc_reset(struct vcpu *v);
/* The others only for those that it has. */
bool mc_has_msr(const struct vcpu *v, u32 index);
int mc_get_msr(struct vcpu *v, u32 index, u64 *value);
int mc_set_msr(struct vcpu *v, u32 index, u64 value, bool from_guest);

/* ---- cpuid.c ---- */
int exit_cpuid(struct vcpu *v);
int cpuid_supported(struct kvm_cpuid_entry2 *entries, u32 room, u32 *count);
/* Finds what the owner has set, NULL if nothing. */
const struct kvm_cpuid_entry2 *cpuid_find(struct vcpu *v, u32 function, u32 index);
void cpuid_changed(struct vcpu *v);

/* ---- vcpu.c ---- */
#define MTRR_VARIABLE 8
#define MTRR_FIXED    11

/* Bits of vcpu->requests: what to do before the next entry. */
#define REQUEST_FLUSH_TLB 0
#define REQUEST_PDPTRS	  1
#define REQUEST_EVENTS	  2 /* look at the chips */
#define REQUEST_TIMERS	  3

struct vcpu {
	struct vm *vm;
	u32 id;
	struct mutex lock;
	struct kvm_run *run; /* shared with the owner: written here, never trusted */
	void *port_data;     /* the page behind it */

	struct vmcs_place place;
	u16 vpid;
	struct guest_registers registers;
	struct fields fields;
	u32 primary_controls;	    /* as in the VMCS */
	u64 cr0_shadow, cr4_shadow; /* what the guest reads of the host's bits */
	unsigned long cr2;
	unsigned long dr[4], dr6, dr7; /* the guest's own */
	struct fpu_guest fpu;
	u64 xcr0;
	u64 lazy[LAZY_COUNT];
	struct host_state host;
	struct preempt_notifier notifier;

	/* The thread in KVM_RUN, for kicks: in the guest or about to be. */
	bool in_guest;
	unsigned long requests;
	wait_queue_head_t wait;

	u32 exit_reason;
	struct events events;
	struct debugger debug;
	struct soft_vcpu chip; /* what the interrupt chips know */
	struct hrtimer timer;  /* theirs */
	struct io_request io;
	u32 mp_state;
	sigset_t sigmask;
	bool has_sigmask;

	struct kvm_cpuid_entry2 cpuid[GUISE_CPUID];
	u32 cpuid_count;
	u64 cr4_allowed; /* by CPUID */

	u64 misc_enable, tsc_offset, feature_control;
	struct machine_checks mce;
	u64 mtrr_default, mtrr_fixed[MTRR_FIXED], mtrr_variable[MTRR_VARIABLE * 2];
};

struct vcpu *vcpu_create(struct vm *vm, u32 id);
void vcpu_destroy(struct vcpu *v);
/* Until vcpu_put() the vCPU's VMCS is current on this thread's processor, wherever that goes. */
void vcpu_load(struct vcpu *v);
void vcpu_put(struct vcpu *v);
int vcpu_run(struct vcpu *v);
void vcpu_kick(struct vcpu *v);
void vcpu_request(struct vcpu *v, int request);
/* The state after RESET; or after INIT, which leaves MSRs and vector registers alone (SDM 3A table
 * 9-1). */
void vcpu_reset(struct vcpu *v, bool init);
/* Sets those of the primary controls @mask that are in @bits, clears the others of it. */
void vcpu_set_controls(struct vcpu *v, u32 mask, u32 bits);

/* RIP + the length of the instruction that has been carried out (SDM 3C 27.2.4). */
void vcpu_skip(struct vcpu *v);
void vcpu_skip_bytes(struct vcpu *v, u32 bytes);
bool vcpu_long_mode(struct vcpu *v);  /* EFER.LMA */
bool vcpu_64bit_code(struct vcpu *v); /* and CS.L */
unsigned int vcpu_cpl(struct vcpu *v);
u64 vcpu_linear_rip(struct vcpu *v);
unsigned long vcpu_get_register(struct vcpu *v, int number);
void vcpu_set_register(struct vcpu *v, int number, unsigned long value);

/* ---- exits.c ---- */
/* 1: enter again; 0: vcpu->run says what the owner must do; negative: an error of the host. */
int exit_handle(struct vcpu *v);
int exit_internal_error(struct vcpu *v, u32 suberror, u64 detail);

/* ---- state.c ---- */

/* Segment registers as instructions (SDM 2A table 2-1) and the VMCS's fields (SDM 3D B) number
 * them. */
enum segment {
	SEGMENT_ES,
	SEGMENT_CS,
	SEGMENT_SS,
	SEGMENT_DS,
	SEGMENT_FS,
	SEGMENT_GS,
	SEGMENT_LDTR,
	SEGMENT_TR
};

u64 state_segment_base(enum segment segment);
u16 state_segment_selector(enum segment segment);
void state_put_rflags(struct vcpu *v, u64 rflags);
void state_get_regs(struct vcpu *v, struct kvm_regs *regs);
void state_set_regs(struct vcpu *v, const struct kvm_regs *regs);
void state_get_sregs(struct vcpu *v, struct kvm_sregs *sregs);
int state_set_sregs(struct vcpu *v, const struct kvm_sregs *sregs);
void state_get_segment(enum segment number, struct kvm_segment *segment);
void state_set_segment(enum segment number, const struct kvm_segment *segment);
int state_get_fpu(struct vcpu *v, struct kvm_fpu *fpu);
int state_set_fpu(struct vcpu *v, const struct kvm_fpu *fpu);
void state_get_events(struct vcpu *v, struct kvm_vcpu_events *events);
int state_set_events(struct vcpu *v, const struct kvm_vcpu_events *events);
void state_get_debugregs(struct vcpu *v, struct kvm_debugregs *regs);
int state_set_debugregs(struct vcpu *v, const struct kvm_debugregs *regs);

/* ---- api.c ---- */
extern const struct file_operations system_operations;

#endif
