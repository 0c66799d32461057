/* The host's processor as the reference: runs code in this process, ended by a signal. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/diff/diff.h"

static struct state *result;
static u64 resume_rsp, resume_rip;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	for (int n = 0; n < 16; n++)
		result->regs[n] = (u64)g[greg_of[n]];
	result->rip = (u64)g[REG_RIP];
	result->rflags = (u64)g[REG_EFL];
	result->vector = (u64)g[REG_TRAPNO];
	result->cr2 = result->vector == 14 ? (u64)g[REG_CR2] : 0;
	memcpy(result->xsave, uc->uc_mcontext.fpregs, sizeof(result->xsave));
	g[REG_RIP] = (greg_t)resume_rip;
	g[REG_RSP] = (greg_t)resume_rsp;
	g[REG_EFL] &= ~0x400ll;
}

int native_init(void)
{
	static u8 stack[65536];
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
	void *code = mmap((void *)CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	void *data = mmap((void *)DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (code == MAP_FAILED || data == MAP_FAILED || sigaltstack(&alt, NULL) < 0)
		return -errno;
	return 0;
}

/* The soft engine has handlers of its own for the same signals: ours stand only during a native run. */
static void exchange_handlers(bool ours)
{
	static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	static struct sigaction saved[ARRAY_SIZE(signals)];
	struct sigaction action = {.sa_sigaction = on_trap,
				   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	for (u32 n = 0; n < ARRAY_SIZE(signals); n++) {
		if (ours)
			sigaction(signals[n], &action, &saved[n]);
		else
			sigaction(signals[n], &saved[n], NULL);
	}
}

/* Loads everything from @in (rdi) and jumps; comes back through resume_rip. */
static __attribute__((noinline)) void jump_into(const struct state *in)
{
	__asm__ volatile("push %%rbp\n push %%rbx\n"
			 "lea 1f(%%rip), %%rax\n mov %%rax, %[rip]\n mov %%rsp, %[rsp]\n"
			 "mov $7, %%eax\n xor %%edx, %%edx\n xrstor64 %c[xsave](%%rdi)\n"
			 "mov %c[regs]+8*4(%%rdi), %%rsp\n"
			 "push %c[start](%%rdi)\n push %c[rflags](%%rdi)\n"
			 "mov %c[regs]+8*0(%%rdi), %%rax\n mov %c[regs]+8*1(%%rdi), %%rcx\n"
			 "mov %c[regs]+8*2(%%rdi), %%rdx\n mov %c[regs]+8*3(%%rdi), %%rbx\n"
			 "mov %c[regs]+8*5(%%rdi), %%rbp\n mov %c[regs]+8*6(%%rdi), %%rsi\n"
			 "mov %c[regs]+8*8(%%rdi), %%r8\n mov %c[regs]+8*9(%%rdi), %%r9\n"
			 "mov %c[regs]+8*10(%%rdi), %%r10\n mov %c[regs]+8*11(%%rdi), %%r11\n"
			 "mov %c[regs]+8*12(%%rdi), %%r12\n mov %c[regs]+8*13(%%rdi), %%r13\n"
			 "mov %c[regs]+8*14(%%rdi), %%r14\n mov %c[regs]+8*15(%%rdi), %%r15\n"
			 "mov %c[regs]+8*7(%%rdi), %%rdi\n"
			 "popfq\n ret\n"
			 "1: pop %%rbx\n pop %%rbp\n"
			 : [rip] "=m"(resume_rip), [rsp] "=m"(resume_rsp), "+D"(in)
			 : [regs] "i"(offsetof(struct state, regs)), [start] "i"(offsetof(struct state, rip)),
			   [rflags] "i"(offsetof(struct state, rflags)),
			   [xsave] "i"(offsetof(struct state, xsave))
			 : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
			   "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	static const u32 mxcsr = 0x1f80;
	__asm__ volatile("fninit\n ldmxcsr %0\n cld" : : "m"(mxcsr));
}

void native_run(const struct state *in, struct state *out)
{
	/* The words that jump_into() leaves below the stack pointer are part of the state. */
	struct state start = *in;
	u64 below[2] = {in->rflags, in->rip};
	memcpy(start.data + (in->regs[4] - DATA_BASE) - 16, below, 16);
	memcpy((void *)DATA_BASE, start.data, DATA_SIZE);
	result = out;
	exchange_handlers(true);
	jump_into(in);
	exchange_handlers(false);
	memcpy(out->data, (void *)DATA_BASE, DATA_SIZE);
}
