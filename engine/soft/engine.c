/* The soft engine's face: engine_soft, VMs, memory slots, creation of vCPUs. Outside. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cpuid.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/guest_debug.h"
#include "engine/soft/irqchip/irqchip.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/pages.h"
#include "engine/soft/run.h"
#include "engine/soft/thread.h"
#include "engine/soft/signals.h"
#include "engine/soft/system/state.h"
#include "engine/soft/system/xstate.h"
#include "engine/soft/timer.h"
#include "engine/soft/translate/block.h"
#include "engine/soft/translate/written.h"
#include "engine/soft/vmx/show.h"

#define CODE_CACHE_SIZE (64ull << 20)
#define CODE_CACHE_MIN	(1ull << 20)
#define CODE_CACHE_MAX	(1ull << 30) /* direct jumps reach 2 GiB */
/* The environment's word for it, in bytes; for tests, as SOFT_TUNING_VARIABLE is. */
#define CODE_CACHE_VARIABLE "GUISE_CODE_CACHE"
#define RUN_AREA_SIZE	    (3 * PAGE_SIZE) /* struct kvm_run and the port data behind it */
#define HOST_MXCSR	    0x1f80

static struct soft_vm *soft_vm_of(struct engine_vm *vm)
{
	return container_of(vm, struct soft_vm, base);
}

static struct soft_vcpu *soft_vcpu_of(struct engine_vcpu *vcpu)
{
	return container_of(vcpu, struct soft_vcpu, base);
}

/* ---- probing ---- */

static void soft_probe(const char *device, struct engine_probe *out)
{
	u32 a, b, c, d, xcr0_low = 0, xcr0_high;
	__cpuid(1, a, b, c, d);
	bool osxsave = c & bit_OSXSAVE;
	if (osxsave)
		__asm__("xgetbv" : "=a"(xcr0_low), "=d"(xcr0_high) : "c"(0));
	bool avx = osxsave && (xcr0_low & 7) == 7;
	__cpuid(0x80000001, a, b, c, d);
	bool lahf = c & 1;
	out->usable = avx && lahf;
	snprintf(out->reason, sizeof(out->reason), "%s",
		 out->usable
		     ? "binary translation, same instruction set"
		     : "the host processor lacks XSAVE with AVX state, or LAHF in 64-bit mode");
}

/* ---- VMs ---- */

static int set_code_cache(struct soft_vm *vm, const char *value, struct error *err)
{
	char *end;
	errno = 0;
	unsigned long long bytes = strtoull(value, &end, 10);
	if (errno || *end || bytes < CODE_CACHE_MIN || bytes > CODE_CACHE_MAX)
		return error_set(err, EINVAL,
				 "a code cache of '%s' bytes is not between %llu MiB and %llu MiB",
				 value, CODE_CACHE_MIN >> 20, CODE_CACHE_MAX >> 20);
	vm->code_cache = align_up(bytes, PAGE_SIZE);
	return 0;
}

static int soft_vm_create(const char *device, struct engine_vm **out, struct error *err)
{
	struct engine_probe probe;
	soft_probe(NULL, &probe);
	if (!probe.usable)
		return error_set(err, ENODEV, "soft engine: %s", probe.reason);
	int r = signals_install(err);
	if (r < 0)
		return r;
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(err, ENOMEM, "no memory for the virtual machine");
	vm->base.engine = &engine_soft;
	vm->code_cache = CODE_CACHE_SIZE;
	tuning_default(&vm->tune);
	const char *tune = getenv(SOFT_TUNING_VARIABLE);
	const char *code_cache = getenv(CODE_CACHE_VARIABLE);
	r = tune && *tune ? tuning_parse(&vm->tune, tune, err) : 0;
	if (!r && code_cache && *code_cache)
		r = set_code_cache(vm, code_cache, err);
	if (r < 0) {
		free(vm);
		return r;
	}
	vm->clock_offset = -(s64)clock_now();
	*out = &vm->base;
	return 0;
}

static int set_perf(struct soft_vm *vm, const char *value, struct error *err)
{
	if (!strcmp(value, "map"))
		vm->perf = PERF_MAP;
	else if (!strcmp(value, "jitdump"))
		vm->perf = PERF_JITDUMP;
	else
		return error_set(err, EINVAL, "perf is told nothing by '%s'; known: map, jitdump",
				 value);
	return 0;
}

/* "host", then features that are offered only where they are asked for: ",+vmx". */
static int set_cpu(struct soft_vm *vm, const char *value, struct error *err)
{
	if (!strcmp(value, "host") || !strcmp(value, "host,-vmx"))
		vm->vmx = false;
	else if (!strcmp(value, "host,+vmx"))
		vm->vmx = true;
	else
		return error_set(err, EINVAL,
				 "the soft engine has no processor '%s'; known: host, host,+vmx",
				 value);
	return 0;
}

static int soft_set_option(struct engine_vm *base, const char *name, const char *value,
			   struct error *err)
{
	struct soft_vm *vm = soft_vm_of(base);
	if (!strcmp(name, "tune"))
		return tuning_parse(&vm->tune, value, err);
	if (!strcmp(name, "code-cache"))
		return set_code_cache(vm, value, err);
	if (!strcmp(name, "cpu"))
		return set_cpu(vm, value, err);
	if (!strcmp(name, "perf"))
		return set_perf(vm, value, err);
	if (!strcmp(name, "stats")) {
		vm->timed = true;
		return 0;
	}
	return error_set(err, EINVAL, "the soft engine has no option '%s'", name);
}

static void soft_vm_destroy(struct engine_vm *base)
{
	struct soft_vm *vm = soft_vm_of(base);
	if (vm->irqchip)
		irqchip_destroy(vm->irqchip);
	for (u32 n = 0; n < vm->slot_count; n++) {
		free(vm->slots[n].page_flags);
		free(vm->slots[n].writers);
		free(vm->slots[n].views);
		free(vm->slots[n].dirty);
	}
	free(vm);
}

static int soft_check_extension(struct engine_vm *vm, int capability)
{
	switch (capability) {
	case KVM_CAP_IRQCHIP:
	case KVM_CAP_USER_MEMORY:
	case KVM_CAP_EXT_CPUID:
	case KVM_CAP_MP_STATE:
	case KVM_CAP_PIT2:
	case KVM_CAP_PIT_STATE2:
	case KVM_CAP_VCPU_EVENTS:
	case KVM_CAP_DEBUGREGS:
	case KVM_CAP_XSAVE:
	case KVM_CAP_XCRS:
	case KVM_CAP_ADJUST_CLOCK:
	case KVM_CAP_SIGNAL_MSI:
	case KVM_CAP_IMMEDIATE_EXIT:
	case KVM_CAP_TSC_DEADLINE_TIMER:
	case KVM_CAP_READONLY_MEM:
	case KVM_CAP_SET_GUEST_DEBUG:
		return 1;
	case KVM_CAP_SET_GUEST_DEBUG2:
		return GUEST_DEBUG_FLAGS;
	case KVM_CAP_NR_MEMSLOTS:
		return MEMSLOTS_MAX;
	case KVM_CAP_NR_VCPUS:
	case KVM_CAP_MAX_VCPUS:
		return 1;
	default:
		return 0;
	}
}

/* ---- memory ---- */

static struct memslot *slot_by_id(struct soft_vm *vm, u32 id)
{
	for (u32 n = 0; n < vm->slot_count; n++)
		if (vm->slots[n].id == id)
			return &vm->slots[n];
	return NULL;
}

static bool overlaps(const struct soft_vm *vm, const struct kvm_userspace_memory_region *r)
{
	for (u32 n = 0; n < vm->slot_count; n++) {
		const struct memslot *s = &vm->slots[n];
		if (s->id != r->slot && r->guest_phys_addr < s->gpa + s->size &&
		    s->gpa < r->guest_phys_addr + r->memory_size)
			return true;
	}
	return false;
}

static void forget_translations(struct soft_vm *vm)
{
	for (u32 n = 0; n < VCPUS_MAX; n++) {
		struct soft_vcpu *v = vm->vcpus[n];
		if (!v)
			continue;
		tlb_forget(v);
		shadow_forget(v);
		cache_reset(v);
	}
}

static void delete_slot(struct soft_vm *vm, struct memslot *slot)
{
	free(slot->page_flags);
	free(slot->writers);
	free(slot->views);
	free(slot->dirty);
	u32 at = (u32)(slot - vm->slots);
	memmove(slot, slot + 1, (vm->slot_count - at - 1) * sizeof(*slot));
	vm->slot_count--;
	memset(&vm->slots[vm->slot_count], 0, sizeof(*slot));
}

static int insert_slot(struct soft_vm *vm, const struct kvm_userspace_memory_region *r)
{
	if (vm->slot_count == MEMSLOTS_MAX)
		return -ENOMEM;
	u64 pages = r->memory_size >> 12;
	struct memslot slot = {
	    .gpa = r->guest_phys_addr,
	    .size = r->memory_size,
	    .host = (u8 *)r->userspace_addr,
	    .id = r->slot,
	    .flags = r->flags,
	    .fd = -1,
	    .page_flags = calloc(pages, 1),
	    .writers = calloc(pages, sizeof(*slot.writers)),
	};
	if (r->flags & KVM_MEM_LOG_DIRTY_PAGES)
		slot.dirty = calloc(pages / 64 + 1, sizeof(u64));
	if (!slot.page_flags || !slot.writers ||
	    ((r->flags & KVM_MEM_LOG_DIRTY_PAGES) && !slot.dirty)) {
		free(slot.page_flags);
		free(slot.writers);
		free(slot.dirty);
		return -ENOMEM;
	}
	u32 at = vm->slot_count;
	while (at > 0 && vm->slots[at - 1].gpa > slot.gpa) {
		vm->slots[at] = vm->slots[at - 1];
		at--;
	}
	vm->slots[at] = slot;
	vm->slot_count++;
	return 0;
}

static bool slots_share(const struct soft_vm *vm)
{
	for (u32 n = 0; n < vm->slot_count; n++)
		for (u32 k = n + 1; k < vm->slot_count; k++)
			if (vm->slots[n].host < vm->slots[k].host + vm->slots[k].size &&
			    vm->slots[k].host < vm->slots[n].host + vm->slots[n].size)
				return true;
	return false;
}

static int soft_set_memory(struct engine_vm *base, const struct kvm_userspace_memory_region *r)
{
	struct soft_vm *vm = soft_vm_of(base);
	u64 all = r->guest_phys_addr | r->memory_size | r->userspace_addr;
	if (all & (PAGE_SIZE - 1) || r->guest_phys_addr + r->memory_size < r->guest_phys_addr ||
	    r->flags & ~(u32)(KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES))
		return -EINVAL;
	struct memslot *old = slot_by_id(vm, r->slot);
	if (!r->memory_size && !old)
		return -EINVAL;
	if (r->memory_size && overlaps(vm, r))
		return -EEXIST;
	if (old)
		delete_slot(vm, old);
	int result = r->memory_size ? insert_slot(vm, r) : 0;
	vm->slots_share = slots_share(vm);
	forget_translations(vm);
	return result;
}

static int soft_memory_file(struct engine_vm *base, u32 slot, int fd, u64 offset)
{
	struct memslot *s = slot_by_id(soft_vm_of(base), slot);
	if (!s)
		return -ENOENT;
	if (offset & (PAGE_SIZE - 1))
		return -EINVAL;
	u64 *views = calloc(s->size / PAGE_SIZE, sizeof(*views));
	if (!views)
		return -ENOMEM;
	free(s->views);
	s->views = views;
	s->fd = fd;
	s->fd_offset = offset;
	return 0;
}

static void soft_memory_written(struct engine_vm *base, u64 gpa, u64 size)
{
	code_memory_written(soft_vm_of(base), gpa, size);
}

/* ---- interrupt chips ---- */

static int soft_create_irqchip(struct engine_vm *base)
{
	struct soft_vm *vm = soft_vm_of(base);
	if (vm->irqchip || atomic_load(&vm->vcpu_count))
		return -EEXIST;
	vm->irqchip = irqchip_create(vm);
	return vm->irqchip ? 0 : -ENOMEM;
}

static int soft_create_pit(struct engine_vm *base, const struct kvm_pit_config *config)
{
	struct soft_vm *vm = soft_vm_of(base);
	return vm->irqchip ? pit_create(vm->irqchip) : -ENOENT;
}

#define NEED_IRQCHIP(vm)                                                                           \
	do {                                                                                       \
		if (!(vm)->irqchip)                                                                \
			return -ENXIO;                                                             \
	} while (0)

static int soft_irq_line(struct engine_vm *base, u32 gsi, int level)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return irqchip_line(soft_vm_of(base), gsi, level);
}

static int soft_signal_msi(struct engine_vm *base, const struct kvm_msi *msi)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return irqchip_msi(soft_vm_of(base), msi);
}

static int soft_get_irqchip(struct engine_vm *base, struct kvm_irqchip *chip)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return irqchip_get(soft_vm_of(base), chip);
}

static int soft_set_irqchip(struct engine_vm *base, const struct kvm_irqchip *chip)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return irqchip_set(soft_vm_of(base), chip);
}

static int soft_get_pit(struct engine_vm *base, struct kvm_pit_state2 *pit)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return pit_get(soft_vm_of(base), pit);
}

static int soft_set_pit(struct engine_vm *base, const struct kvm_pit_state2 *pit)
{
	NEED_IRQCHIP(soft_vm_of(base));
	return pit_set(soft_vm_of(base), pit);
}

static int soft_get_clock(struct engine_vm *base, struct kvm_clock_data *clock)
{
	memset(clock, 0, sizeof(*clock));
	clock->clock = clock_now() + (u64)soft_vm_of(base)->clock_offset;
	clock->flags = KVM_CLOCK_TSC_STABLE;
	return 0;
}

static int soft_set_clock(struct engine_vm *base, const struct kvm_clock_data *clock)
{
	soft_vm_of(base)->clock_offset = (s64)(clock->clock - clock_now());
	return 0;
}

static int soft_get_supported_cpuid(struct engine_vm *vm, struct kvm_cpuid2 *cpuid)
{
	/* A machine without interrupt chips has no timer either: its few instructions need not wait
	 * for the clock. */
	bool timeless = vm && !soft_vm_of(vm)->irqchip;
	struct xstate_layout layout;
	xstate_probe(&layout, vm ? soft_vm_of(vm)->tune.avx512 : true);
	return cpuid_supported(cpuid, timeless ? 0 : clock_tsc_khz(), &layout,
			       vm && soft_vm_of(vm)->vmx);
}

/* ---- vCPUs ---- */

static void free_vcpu(struct soft_vcpu *v)
{
	if (v->cache)
		cache_destroy(v->cache);
	if (v->lapic)
		lapic_destroy(v->lapic);
	if (v->base.run)
		munmap(v->base.run, RUN_AREA_SIZE);
	shadow_destroy(v);
	pages_unmap_before(v->shadow_span, v, sizeof(*v));
}

static void *map_pages(u64 size)
{
	void *p = mmap(NULL, align_up(size, PAGE_SIZE), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* With room for the shadow table behind it, if the host has that. */
static struct soft_vcpu *map_vcpu(void)
{
	struct soft_vcpu *v = pages_map_before(SHADOW_TABLE_SPAN, sizeof(*v), 0, LARGE_PAGE_SIZE);
	if (v) {
		v->shadow_span = SHADOW_TABLE_SPAN;
		return v;
	}
	v = pages_map_before(0, sizeof(*v), 0, LARGE_PAGE_SIZE);
	if (v)
		v->shadow_refused = true;
	return v;
}

static int soft_vcpu_create(struct engine_vm *base, u32 id, struct engine_vcpu **out,
			    struct error *err)
{
	struct soft_vm *vm = soft_vm_of(base);
	if (id >= (u32)soft_check_extension(base, KVM_CAP_MAX_VCPUS))
		return error_set(err, EINVAL,
				 "the soft engine runs one processor; use -c 1 or another engine");
	if (vm->vcpus[id])
		return error_set(err, EEXIST, "vCPU %u exists already", id);
	struct soft_vcpu *v = map_vcpu();
	if (!v)
		return error_set(err, ENOMEM, "no memory for vCPU %u", id);
	v->self = v;
	run_begin_stats(v);
	v->vm = vm;
	v->host_mxcsr = HOST_MXCSR;
	xstate_probe(&v->layout, vm->tune.avx512);
	v->tsc_khz = vm->irqchip ? clock_tsc_khz() : 0; /* else: see soft_set_cpuid() */
	v->base.engine = &engine_soft;
	v->base.vm = base;
	v->base.id = id;
	v->base.run = map_pages(RUN_AREA_SIZE);
	int r = v->base.run ? cache_create(v, vm->code_cache, err)
			    : error_set(err, ENOMEM, "no memory for vCPU %u", id);
	if (r < 0)
		goto fail;
	v->shadow_refused |= !v->cache->has_rorx; /* SHRX is of BMI2 too */
	v->shadow_check = !vm->tune.patience;
	if (vm->irqchip && !(v->lapic = lapic_create(v))) {
		r = error_set(err, ENOMEM, "no memory for vCPU %u", id);
		goto fail;
	}
	vcpu_reset(v, false);
	tlb_init(v);
	v->mp_state = id == 0 || !vm->irqchip ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
	vm->vcpus[id] = v;
	atomic_fetch_add(&vm->vcpu_count, 1);
	*out = &v->base;
	return 0;
fail:
	free_vcpu(v);
	return r;
}

/* Translations know what CPUID says. */
static int set_cpuid(struct engine_vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
	struct soft_vcpu *v = container_of(vcpu, struct soft_vcpu, base);
	int r = soft_set_cpuid(vcpu, cpuid);
	if (!r && v->cache->count)
		cache_reset(v);
	return r;
}

static void soft_vcpu_destroy(struct engine_vcpu *vcpu)
{
	struct soft_vcpu *v = soft_vcpu_of(vcpu);
	timer_release(v);
	thread_forget(v);
	v->vm->vcpus[vcpu->id] = NULL;
	atomic_fetch_sub(&v->vm->vcpu_count, 1);
	free_vcpu(v);
}

static int soft_get_lapic(struct engine_vcpu *vcpu, struct kvm_lapic_state *state)
{
	struct soft_vcpu *v = soft_vcpu_of(vcpu);
	return v->lapic ? lapic_get(v, state) : -EINVAL;
}

static int soft_set_lapic(struct engine_vcpu *vcpu, const struct kvm_lapic_state *state)
{
	struct soft_vcpu *v = soft_vcpu_of(vcpu);
	return v->lapic ? lapic_set(v, state) : -EINVAL;
}

static int soft_interrupt(struct engine_vcpu *vcpu, u32 vector)
{
	struct soft_vcpu *v = soft_vcpu_of(vcpu);
	if (vector > 255)
		return -EINVAL;
	if (v->lapic)
		return -ENXIO;
	if (v->events.user_interrupt)
		return -EEXIST;
	v->events.user_vector = (u8)vector;
	v->events.user_interrupt = true;
	vcpu_attention(v, ATTENTION_IRQ);
	return 0;
}

static int soft_nmi(struct engine_vcpu *vcpu)
{
	struct soft_vcpu *v = soft_vcpu_of(vcpu);
	u32 pending = atomic_load(&v->events.nmi);
	u32 limit = v->events.nmi_masked ? 1 : 2; /* SDM 3A 6.7.1 */
	while (pending < limit &&
	       !atomic_compare_exchange_weak(&v->events.nmi, &pending, pending + 1))
		;
	vcpu_poke(v, ATTENTION_IRQ);
	return 0;
}

static void soft_stats(struct engine_vcpu *vcpu, struct engine_stats *stats)
{
	struct engine_stats own;
	run_stats(soft_vcpu_of(vcpu), &own);
#define X(name, what) stats->name += own.name;
	ENGINE_COUNTERS(X)
#undef X
}

const struct engine engine_soft = {
    .name = "soft",
    .tune_help = tuning_help,
    .probe = soft_probe,
    .vm_create = soft_vm_create,
    .vm_set_option = soft_set_option,
    .vm_destroy = soft_vm_destroy,
    .vm_check_extension = soft_check_extension,
    .vm_set_memory = soft_set_memory,
    .vm_memory_file = soft_memory_file,
    .vm_memory_written = soft_memory_written,
    .vm_create_irqchip = soft_create_irqchip,
    .vm_create_pit = soft_create_pit,
    .vm_irq_line = soft_irq_line,
    .vm_signal_msi = soft_signal_msi,
    .vm_get_irqchip = soft_get_irqchip,
    .vm_set_irqchip = soft_set_irqchip,
    .vm_get_pit = soft_get_pit,
    .vm_set_pit = soft_set_pit,
    .vm_get_clock = soft_get_clock,
    .vm_set_clock = soft_set_clock,
    .vm_get_supported_cpuid = soft_get_supported_cpuid,
    .vcpu_create = soft_vcpu_create,
    .vcpu_destroy = soft_vcpu_destroy,
    .vcpu_run = soft_vcpu_run,
    .vcpu_kick = soft_vcpu_kick,
    .vcpu_get_regs = soft_get_regs,
    .vcpu_set_regs = soft_set_regs,
    .vcpu_get_sregs = soft_get_sregs,
    .vcpu_set_sregs = soft_set_sregs,
    .vcpu_get_fpu = soft_get_fpu,
    .vcpu_set_fpu = soft_set_fpu,
    .vcpu_get_xsave = soft_get_xsave,
    .vcpu_set_xsave = soft_set_xsave,
    .vcpu_get_xcrs = soft_get_xcrs,
    .vcpu_set_xcrs = soft_set_xcrs,
    .vcpu_get_msrs = soft_get_msrs,
    .vcpu_set_msrs = soft_set_msrs,
    .vcpu_set_cpuid = set_cpuid,
    .vcpu_get_lapic = soft_get_lapic,
    .vcpu_set_lapic = soft_set_lapic,
    .vcpu_get_events = soft_get_events,
    .vcpu_set_events = soft_set_events,
    .vcpu_get_debugregs = soft_get_debugregs,
    .vcpu_set_debugregs = soft_set_debugregs,
    .vcpu_set_guest_debug = soft_set_guest_debug,
    .vcpu_get_mp_state = soft_get_mp_state,
    .vcpu_set_mp_state = soft_set_mp_state,
    .vcpu_interrupt = soft_interrupt,
    .vcpu_nmi = soft_nmi,
    .vcpu_translate = soft_translate,
    .vcpu_get_vmx = soft_get_vmx,
    .vcpu_stats = soft_stats,
};
