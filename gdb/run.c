/*
 * Running and stopping. All vCPUs stop together (gdb's "all-stop"): whoever meets a reason notes it
 * and comes to rest; the loop's thread then asks the others to rest too, and reports one reason.
 */
#include <string.h>

#include "base/error.h"
#include "gdb/internal.h"
#include "host/loop.h"

#define EXC_DB 1
#define EXC_BP 3

#define DR6_BREAKPOINTS 0xfull
#define DR6_BS		BIT(14)

/* ---- a vCPU meets a reason: on its thread ---- */

static struct stop stop_for(enum stop_kind kind)
{
	return (struct stop){.kind = kind};
}

/** What KVM_EXIT_DEBUG was for; STOP_NONE: for nothing of ours. */
static struct stop find_reason(struct gdb *gdb, u32 cpu, const struct kvm_debug_exit_arch *arch)
{
	if (arch->exception == EXC_BP)
		return stop_for(breakpoint_is_ours(gdb, cpu, arch->pc) ? STOP_SOFTWARE : STOP_NONE);
	for (u32 n = 0; n < HARDWARE_MAX; n++) {
		const struct hardware_breakpoint *h = &gdb->hardware[n];
		if (!h->length || !(arch->dr6 >> n & 1))
			continue;
		return (struct stop){h->type == '1' ? STOP_HARDWARE : STOP_WATCH, n};
	}
	if ((arch->dr6 & DR6_BS) && gdb->cpus[cpu].action == CPU_STEP)
		return stop_for(STOP_STEP);
	return stop_for(STOP_NONE);
}

/** What the vCPU is told while it does what it is to do. */
static struct kvm_guest_debug debug_of(const struct gdb *gdb, u32 cpu)
{
	struct kvm_guest_debug debug = {0};

	debug.control = breakpoints_debug(gdb, &debug);
	if (gdb->cpus[cpu].action == CPU_STEP)
		debug.control |= gdb->step_flags;
	if (debug.control)
		debug.control |= KVM_GUESTDBG_ENABLE;
	return debug;
}

/** #DB and #BP that the guest has for itself: it gets them. */
static void hand_back(struct gdb *gdb, u32 cpu, const struct kvm_debug_exit_arch *arch)
{
	const struct engine *engine = gdb->machine.engine;
	struct engine_vcpu *vcpu = gdb->machine.cpus[cpu];
	struct kvm_guest_debug debug = debug_of(gdb, cpu);
	struct kvm_debugregs registers;

	debug.control |= KVM_GUESTDBG_ENABLE;
	if (arch->exception == EXC_BP) {
		debug.control |= KVM_GUESTDBG_INJECT_BP;
	} else {
		/* SDM 3B 17.2.3: B0-B3 are those of the last one, the rest is sticky. */
		if (engine->vcpu_get_debugregs(vcpu, &registers) == 0) {
			registers.dr6 = (registers.dr6 & ~DR6_BREAKPOINTS) | arch->dr6;
			engine->vcpu_set_debugregs(vcpu, &registers);
		}
		debug.control |= KVM_GUESTDBG_INJECT_DB;
	}
	engine->vcpu_set_guest_debug(vcpu, &debug);
}

bool gdb_debug_exit(struct gdb *gdb, u32 cpu)
{
	const struct kvm_debug_exit_arch arch = gdb->machine.cpus[cpu]->run->debug.arch;
	struct stop stop = find_reason(gdb, cpu, &arch);

	if (stop.kind == STOP_NONE) {
		hand_back(gdb, cpu, &arch);
		return true;
	}
	pthread_mutex_lock(&gdb->lock);
	gdb->cpus[cpu].stop = stop;
	pthread_mutex_unlock(&gdb->lock);
	return false;
}

/* ---- stopping ---- */

static bool somebody_stopped(struct gdb *gdb)
{
	bool found = false;

	pthread_mutex_lock(&gdb->lock);
	for (u32 n = 0; n < gdb->machine.cpu_count; n++)
		found |= gdb->cpus[n].stop.kind != STOP_NONE;
	pthread_mutex_unlock(&gdb->lock);
	return found;
}

/*
 * Takes the reason that is reported. Others are met again when their vCPUs go on, as nothing of
 * them has been done, except watchpoints, which are behind them: those are kept.
 */
static void choose_stop(struct gdb *gdb)
{
	bool chosen = false;

	gdb->stop = stop_for(STOP_INTERRUPT);
	pthread_mutex_lock(&gdb->lock);
	for (u32 n = 0; n < gdb->machine.cpu_count; n++) {
		struct stop *stop = &gdb->cpus[n].stop;
		if (stop->kind == STOP_NONE || (chosen && stop->kind == STOP_WATCH))
			continue;
		if (!chosen) {
			gdb->stop = *stop;
			gdb->stopped_cpu = n;
			chosen = true;
		}
		stop->kind = STOP_NONE;
	}
	pthread_mutex_unlock(&gdb->lock);
	gdb->cpu = gdb->stopped_cpu;
}

static void report(struct gdb *gdb)
{
	struct text reply = {0};

	if (!gdb->report_due)
		return;
	gdb->report_due = false;
	gdb_stop_reply(gdb, &reply);
	gdb_send(gdb, &reply);
	text_free(&reply);
}

void gdb_look(struct gdb *gdb)
{
	const struct gdb_machine *m = &gdb->machine;

	if (gdb->state == GDB_RUNNING && somebody_stopped(gdb)) {
		gdb->state = GDB_STOPPING;
		m->ops->pause(m->opaque);
	}
	if (gdb->state != GDB_STOPPING || !m->ops->at_rest(m->opaque))
		return;
	gdb->state = GDB_STOPPED;
	choose_stop(gdb);
	if (gdb->leaving) {
		gdb->leaving = false;
		if (!gdb_is_connected(gdb)) {
			gdb_release(gdb);
			return;
		}
		gdb_forget_requests(gdb); /* the next debugger is there already */
	}
	report(gdb);
	gdb_take_commands(gdb);
}

void gdb_interrupt(struct gdb *gdb)
{
	if (gdb->state != GDB_RUNNING)
		return;
	gdb->detached = false;
	gdb->state = GDB_STOPPING;
	gdb->machine.ops->pause(gdb->machine.opaque);
	gdb_poke(gdb); /* should all rest already */
}

static u8 signal_of(enum stop_kind kind)
{
	if (kind == STOP_INTERRUPT)
		return GDB_SIGNAL_INT;
	return kind == STOP_FAILED ? GDB_SIGNAL_ABRT : GDB_SIGNAL_TRAP;
}

void gdb_stop_reply(struct gdb *gdb, struct text *reply)
{
	const struct hardware_breakpoint *h = &gdb->hardware[gdb->stop.hit];

	text_add(reply, "T%02xthread:%x;", signal_of(gdb->stop.kind), gdb->stopped_cpu + 1);
	if (gdb->stop.kind == STOP_SOFTWARE && gdb->knows_swbreak)
		text_add(reply, "swbreak:;");
	else if (gdb->stop.kind == STOP_HARDWARE && gdb->knows_hwbreak)
		text_add(reply, "hwbreak:;");
	else if (gdb->stop.kind == STOP_WATCH)
		text_add(reply, "%s:%llx;", h->type == '2' ? "watch" : "awatch",
			 (unsigned long long)h->address);
}

/* ---- going on ---- */

/** A watchpoint that was met while another reason was reported. */
static bool has_kept_stop(struct gdb *gdb)
{
	bool found = false;

	pthread_mutex_lock(&gdb->lock);
	for (u32 n = 0; n < gdb->machine.cpu_count; n++) {
		struct stop *stop = &gdb->cpus[n].stop;
		if (stop->kind == STOP_WATCH && !gdb->hardware[stop->hit].length)
			stop->kind = STOP_NONE; /* it has been taken away meanwhile */
		found |= stop->kind != STOP_NONE && gdb->cpus[n].action != CPU_HOLD;
	}
	pthread_mutex_unlock(&gdb->lock);
	return found;
}

static int tell_engine(struct gdb *gdb, u32 cpu)
{
	const struct gdb_machine *m = &gdb->machine;
	struct kvm_guest_debug debug = debug_of(gdb, cpu);

	if (!debug.control && !gdb->cpus[cpu].control)
		return 0;
	int ret = m->engine->vcpu_set_guest_debug(m->cpus[cpu], &debug);
	if (ret == 0)
		gdb->cpus[cpu].control = debug.control;
	return ret;
}

int gdb_resume(struct gdb *gdb)
{
	const struct gdb_machine *m = &gdb->machine;
	u64 going = 0;

	if (gdb->dead) {
		gdb->looking = false;
		loop_stop(gdb->loop);
		return 0;
	}
	if (has_kept_stop(gdb)) {
		choose_stop(gdb);
		report(gdb);
		return 0;
	}
	for (u32 n = 0; n < m->cpu_count; n++) {
		int ret = tell_engine(gdb, n);
		if (ret < 0)
			return ret;
		if (gdb->cpus[n].action != CPU_HOLD)
			going |= BIT(n);
	}
	gdb->state = GDB_RUNNING;
	m->ops->resume(m->opaque, going);
	return 0;
}

void gdb_forget_requests(struct gdb *gdb)
{
	breakpoints_remove_all(gdb);
	gdb->report_due = false;
	gdb->stop = stop_for(STOP_INTERRUPT);
	pthread_mutex_lock(&gdb->lock);
	for (u32 n = 0; n < gdb->machine.cpu_count; n++) {
		gdb->cpus[n].action = CPU_RUN;
		gdb->cpus[n].stop.kind = STOP_NONE;
	}
	pthread_mutex_unlock(&gdb->lock);
}

void gdb_release(struct gdb *gdb)
{
	if (gdb->state == GDB_NO_MACHINE)
		return;
	gdb_forget_requests(gdb);
	gdb_resume(gdb);
}

/* ---- machines come and go ---- */

int gdb_attach(struct gdb *gdb, const struct gdb_machine *machine, struct error *err)
{
	const struct engine *engine = machine->engine;

	gdb->machine = *machine;
	gdb->arch = gdb->config.arch == GDB_ARCH_AUTO ? machine->arch : gdb->config.arch;
	int ret = registers_create(gdb);
	if (ret < 0)
		return error_errno(err, -ret, "gdb: cannot tell which registers a vCPU has");
	memset(gdb->cpus, 0, sizeof(gdb->cpus));
	breakpoints_forget(gdb); /* they were in another memory */
	gdb->state = GDB_STOPPED;
	gdb->stop = stop_for(STOP_STEP);
	gdb->cpu = gdb->stopped_cpu = 0;
	gdb->dead = gdb->looking = false;
	u32 flags = (u32)engine->vm_check_extension(machine->engine_vm, KVM_CAP_SET_GUEST_DEBUG2);
	gdb->step_flags = KVM_GUESTDBG_SINGLESTEP | (flags & KVM_GUESTDBG_BLOCKIRQ);
	report(gdb);
	return 0;
}

bool gdb_lets_start(struct gdb *gdb)
{
	bool waits = gdb->config.wait || gdb_is_debugged(gdb);

	gdb->config.wait = false; /* for the first machine only; the others follow a reset */
	if (!waits)
		gdb->state = GDB_RUNNING;
	return !waits;
}

bool gdb_failed(struct gdb *gdb, u32 cpu, const char *text)
{
	struct text line = {0};

	if (!gdb_is_debugged(gdb))
		return false;
	gdb->state = GDB_STOPPED;
	gdb->dead = gdb->looking = true;
	gdb->stop = stop_for(STOP_FAILED);
	gdb->cpu = gdb->stopped_cpu = cpu;
	if (gdb->report_due) { /* as console output, which may come before the stop reply */
		text_add(&line, "O");
		text_hex(&line, "The guest failed: ", 18);
		text_hex(&line, text, strlen(text));
		text_hex(&line, "\n", 1);
		gdb_send(gdb, &line);
		text_free(&line);
	}
	report(gdb);
	gdb_take_commands(gdb);
	return gdb->looking;
}

bool gdb_is_looking(const struct gdb *gdb)
{
	return gdb->looking;
}

void gdb_detach(struct gdb *gdb)
{
	gdb->state = GDB_NO_MACHINE;
	gdb->looking = false;
	breakpoints_forget(gdb);
	registers_destroy(gdb);
}
