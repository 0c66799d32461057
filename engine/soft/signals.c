#include "engine/soft/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/error.h"
#include "engine/soft/mmu/shadow.h"
#include "engine/soft/translate/block.h"
#include "engine/soft/translate/emit.h"
#include "engine/soft/vcpu.h"

static struct sigaction previous[_NSIG];

static bool in_cache(const struct soft_vcpu *v, u64 pc)
{
	u64 rx = (u64)v->cache->rx;
	return pc >= rx && pc < rx + v->cache->size;
}

void signals_kick_again(void)
{
	syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), KICK_SIGNAL);
}

/*
 * The kick has interrupted C: the engine's, which looks at attention by itself, or somebody else's
 * signal handler on top of translated code, which does not. Other handlers run with other signals
 * blocked: have the kick delivered again when that one returns and unblocks it.
 */
static void defer_kick(const struct soft_vcpu *v, ucontext_t *uc)
{
	u64 mask;
	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	if (mask == v->signal_mask || sigismember(&uc->uc_sigmask, KICK_SIGNAL))
		return;
	sigaddset(&uc->uc_sigmask, KICK_SIGNAL);
	signals_kick_again();
}

/* Sees to it that attention, which is set, is noticed soon: see stubs.c. */
static void interrupt_guest(struct soft_vcpu *v, ucontext_t *uc)
{
	u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
	const struct stubs *s = &v->cache->stubs;
	if (!in_cache(v, pc)) {
		defer_kick(v, uc);
		return;
	}
	const u8 *p = (const u8 *)pc;
	if (p >= s->dispatch_ready && p < s->dispatch_end)
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)s->dispatch;
	for (u32 n = 0; n < ARRAY_SIZE(s->check_begin); n++)
		if (p >= s->check_begin[n] && p < s->check_end[n])
			uc->uc_mcontext.gregs[REG_RIP] = (greg_t)s->check_begin[n];
	if (p >= s->leaves_begin && p < s->leaves_end)
		p = *(const u8 **)uc->uc_mcontext.gregs[REG_RSP];
	const u8 *go_on = block_poke(v, p);
	if (go_on != p)
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)go_on;
}

static void on_kick(int signal, siginfo_t *info, void *context)
{
	struct soft_vcpu *v = soft_current;
	int saved = errno;
	if (info->si_code == SI_TIMER)
		soft_timers_fired++;
	if (v) {
		if (info->si_code == SI_TIMER)
			vcpu_attention(v, ATTENTION_TIMER);
		interrupt_guest(v, context);
	}
	errno = saved;
}

static void take_guest_registers(struct soft_vcpu *v, const ucontext_t *uc, bool flags_in_host)
{
	static const int by_number[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
					  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
					  REG_R12, REG_R13, REG_R14, REG_R15};
	for (int g = RAX; g <= R15; g++)
		if (host_reg(g) != REG_NONE)
			v->regs[g] = (u64)uc->uc_mcontext.gregs[by_number[host_reg(g)]];
	if (flags_in_host)
		vcpu_set_arith(v, (u64)uc->uc_mcontext.gregs[REG_EFL]);
}

/* State of the guest before the instruction that @pc belongs to. */
static void take_guest(struct soft_vcpu *v, const struct block *b, ucontext_t *uc)
{
	const void *pc = (const void *)uc->uc_mcontext.gregs[REG_RIP];
	const struct insn_map *map = block_insn(v, b, pc);
	take_guest_registers(v, uc, !map->flags_parked);
	v->rip = b->linear + map->guest - b->cs_base;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)v->cache->stubs.dispatch;
}

/* State of the guest before what is left of a string instruction in a stub of MODE_SHADOW
 * (string_stubs.c). v->rip is set. */
static void take_string(struct soft_vcpu *v, ucontext_t *uc)
{
	const struct stubs *s = &v->cache->stubs;
	const u8 *pc = (const u8 *)uc->uc_mcontext.gregs[REG_RIP];
	take_guest_registers(v, uc, false);
	for (u32 n = 0; n < ARRAY_SIZE(s->shadow_rep_movs); n++) {
		if (pc == s->shadow_rep_movs[n])
			v->regs[RSI] -= (u64)uc->uc_mcontext.gregs[REG_R14];
		if (pc == s->shadow_rep_movs[n] || pc == s->shadow_rep_stos[n])
			v->regs[RDI] -= (u64)uc->uc_mcontext.gregs[REG_R15];
	}
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)s->dispatch;
}

/* An access that the host's MMU could not make for the guest (mmu/shadow.h), or that is misaligned
 * or not canonical: which of them, the instruction finds out when it runs alone. */
static bool take_shadow_fault(struct soft_vcpu *v, ucontext_t *uc)
{
	const greg_t *regs = uc->uc_mcontext.gregs;
	u64 pc = (u64)regs[REG_RIP], trap = (u64)regs[REG_TRAPNO];
	if (!in_cache(v, pc) || (trap != EXC_PF && trap != EXC_GP && trap != EXC_SS))
		return false;
	const struct stubs *s = &v->cache->stubs;
	bool string = (const u8 *)pc >= s->leaves_begin && (const u8 *)pc < s->leaves_end;
	const void *at = string ? *(const void **)regs[REG_RSP] : (const void *)pc;
	const struct block *b = block_of_host(v, at);
	if (!b || !(b->mode & MODE_SHADOW))
		return false;
	enum shadow_result result = trap == EXC_PF
					? shadow_fault(v, (u64)regs[REG_CR2], regs[REG_ERR] & PF_W)
					: shadow_fault_unknown(v);
	if (result != SHADOW_MAPPED && string)
		take_string(v, uc);
	else if (result != SHADOW_MAPPED)
		take_guest(v, b, uc);
	return true;
}

/*
 * A fault of the host's processor in translated code is the guest's own: division, unmasked
 * floating-point exceptions, misaligned vector operands, reserved MXCSR bits. The trap number is
 * the guest's vector.
 */
static bool take_guest_fault(struct soft_vcpu *v, ucontext_t *uc)
{
	u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
	u64 trap = (u64)uc->uc_mcontext.gregs[REG_TRAPNO];
	if (!in_cache(v, pc))
		return false;
	struct block *b = block_of_host(v, (const void *)pc);
	if (!b || (trap != EXC_DE && trap != EXC_UD && trap != EXC_GP && trap != EXC_MF &&
		   trap != EXC_XM && trap != EXC_AC && trap != EXC_SS))
		return false;
	take_guest(v, b, uc);
	/* SDM 3A 6.15, #XM: without CR4.OSXMMEXCPT the exception is #UD. */
	if (trap == EXC_XM && !(v->cr4 & CR4_OSXMMEXCPT))
		trap = EXC_UD;
	v->events.exception = true;
	v->events.exception_vector = (u8)trap;
	v->events.exception_has_error = trap == EXC_GP || trap == EXC_SS || trap == EXC_AC;
	v->events.exception_error = 0;
	return true;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct soft_vcpu *v = soft_current;
	/* SIGBUS: #SS, with RBP as base */
	if (v && (signal == SIGSEGV || signal == SIGBUS) && take_shadow_fault(v, context))
		return;
	if (v && take_guest_fault(v, context))
		return;
	/* Not ours: whoever was there before, or the default action when the instruction faults
	 * again. */
	const struct sigaction *before = &previous[signal];
	if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(signal, info, context);
	else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
		before->sa_handler(signal);
	else
		sigaction(signal, before, NULL);
}

static int install_error;

static void install(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction action = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO | SA_RESTART};
	if (sigaction(KICK_SIGNAL, &action, &previous[KICK_SIGNAL]) < 0)
		install_error = errno;
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_SIGINFO | SA_NODEFER;
	/* A kick has to find translated code, not the handler that returns to it unasked. */
	sigaddset(&action.sa_mask, KICK_SIGNAL);
	for (u32 n = 0; n < ARRAY_SIZE(faults); n++)
		if (sigaction(faults[n], &action, &previous[faults[n]]) < 0)
			install_error = errno;
}

int signals_install(struct error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, install);
	if (install_error)
		return error_errno(err, install_error, "cannot install signal handlers");
	return 0;
}
