/* The host's processor as the reference: runs code in this process, ended by a signal. */
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#include <sys/auxv.h> /* behind x86.h: <elf.h> too has a PF_W */

struct xstate_layout xstate;
static struct state *result;
static u64 resume_rsp, resume_rip, host_gs_base;
static struct ldt_entry loaded[LDT_SIZE];

/* As IRETQ pops it. */
static struct {
	u64 rip, cs, rflags, rsp, ss;
} entry_frame;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				REG_R12, REG_R13, REG_R14, REG_R15};

static void save_segments(struct state *out, const greg_t *g)
{
	out->seg[SEG_CS] = (u16)g[REG_CSGSFS];
	out->seg[SEG_SS] = (u16)((u64)g[REG_CSGSFS] >> 48);
	__asm__ volatile("mov %%ds, %0" : "=r"(out->seg[SEG_DS]));
	__asm__ volatile("mov %%es, %0" : "=r"(out->seg[SEG_ES]));
	__asm__ volatile("mov %%gs, %0" : "=r"(out->seg[SEG_GS]));
	if (out->seg[SEG_CS] == USER_CS64)
		__asm__ volatile("rdgsbase %0" : "=r"(out->gs_base));
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	(void)signal;
	(void)info;
	for (int n = 0; n < 16; n++)
		result->regs[n] = (u64)g[greg_of[n]];
	result->rip = (u64)g[REG_RIP];
	result->rflags = (u64)g[REG_EFL];
	result->vector = (u64)g[REG_TRAPNO];
	result->error = (u64)g[REG_ERR];
	result->cr2 = result->vector == 14 ? (u64)g[REG_CR2] : 0;
	result->gs_base = 0;
	save_segments(result, g);
	memcpy(result->xsave, uc->uc_mcontext.fpregs, sizeof(result->xsave));
	g[REG_RIP] = (greg_t)resume_rip;
	g[REG_RSP] = (greg_t)resume_rsp;
	g[REG_EFL] = 0x202;
	g[REG_CSGSFS] = (greg_t)((u64)USER_DS << 48 | USER_CS64);
}

static int set_ldt(u32 number, const struct ldt_entry *e)
{
	struct user_desc d = {
	    .entry_number = number,
	    .base_addr = e->base,
	    .limit = e->limit,
	    .seg_32bit = e->big,
	    .contents = (unsigned)e->code << 1 | e->expand_down,
	    .read_exec_only = e->fixed,
	    .seg_not_present = e->absent,
	};
	return syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)) ? -errno : 0;
}

static void load_ldt(const struct ldt_entry *ldt)
{
	for (u32 n = 0; n < LDT_SIZE; n++) {
		if (!ldt[n].defined || !memcmp(&loaded[n], &ldt[n], sizeof(ldt[n])))
			continue;
		set_ldt(n, &ldt[n]);
		loaded[n] = ldt[n];
	}
}

static bool is_code32(u16 selector)
{
	u32 rights = 0;
	bool valid;
	__asm__("lar %2, %0" : "+r"(rights), "=@ccz"(valid) : "r"((u32)selector));
	return valid && (rights & 0x00609800) == 0x00409800 /* D, not L, present code */;
}

static void find_kinds(u32 *kinds)
{
	struct ldt_entry probe = {.defined = true, .base = (u32)DATA_BASE, .limit = 0xffff};
	*kinds = BIT(KIND_64);
	if (is_code32(USER_CS32))
		*kinds |= BIT(KIND_32);
	else
		printf("no 32-bit code: the kernel has no compatibility mode\n");
	int r = set_ldt(1, &probe);
	if (!r)
		*kinds |= BIT(KIND_32_SEG) | BIT(KIND_16);
	else
		printf("no 16-bit code, no segments with bases: modify_ldt: %s\n", strerror(-r));
}

int native_init(u32 *kinds)
{
	static u8 stack[65536];
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
	void *code = mmap((void *)CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	void *data = mmap((void *)DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (code == MAP_FAILED || data == MAP_FAILED || sigaltstack(&alt, NULL) < 0)
		return -errno;
	if (!(getauxval(AT_HWCAP2) & 2)) /* HWCAP2_FSGSBASE */
		return -ENODEV;
	find_kinds(kinds);
	xstate_probe(&xstate, true);
	return 0;
}

/* The soft engine has handlers of its own for the same signals: ours stand only during a native
 * run. */
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
	__asm__ volatile(
	    "push %%rbp\n push %%rbx\n"
	    "lea 1f(%%rip), %%rax\n mov %%rax, %[rip]\n mov %%rsp, %[rsp]\n"
	    "pushq $0x202\n popfq\n" /* IRETQ refuses NT (SDM 2A) */
	    "mov %[mask], %%eax\n xor %%edx, %%edx\n xrstor64 %c[xsave](%%rdi)\n"
	    "movw %c[seg]+2*0(%%rdi), %%es\n movw %c[seg]+2*3(%%rdi), %%ds\n"
	    "movw %c[seg]+2*5(%%rdi), %%gs\n"
	    "cmpw %[cs64], %c[seg]+2*1(%%rdi)\n jne 2f\n"
	    "mov %c[gs](%%rdi), %%rax\n wrgsbase %%rax\n 2:\n"
	    "mov %c[regs]+8*0(%%rdi), %%rax\n mov %c[regs]+8*1(%%rdi), %%rcx\n"
	    "mov %c[regs]+8*2(%%rdi), %%rdx\n mov %c[regs]+8*3(%%rdi), %%rbx\n"
	    "mov %c[regs]+8*5(%%rdi), %%rbp\n mov %c[regs]+8*6(%%rdi), %%rsi\n"
	    "mov %c[regs]+8*8(%%rdi), %%r8\n mov %c[regs]+8*9(%%rdi), %%r9\n"
	    "mov %c[regs]+8*10(%%rdi), %%r10\n mov %c[regs]+8*11(%%rdi), %%r11\n"
	    "mov %c[regs]+8*12(%%rdi), %%r12\n mov %c[regs]+8*13(%%rdi), %%r13\n"
	    "mov %c[regs]+8*14(%%rdi), %%r14\n mov %c[regs]+8*15(%%rdi), %%r15\n"
	    "mov %c[regs]+8*7(%%rdi), %%rdi\n"
	    "lea %[frame], %%rsp\n iretq\n"
	    "1: pop %%rbx\n pop %%rbp\n"
	    "xor %%eax, %%eax\n mov %%eax, %%ds\n mov %%eax, %%es\n mov %%eax, %%gs\n"
	    : [rip] "=m"(resume_rip), [rsp] "=m"(resume_rsp), "+D"(in)
	    : [regs] "i"(offsetof(struct state, regs)), [seg] "i"(offsetof(struct state, seg)),
	      [gs] "i"(offsetof(struct state, gs_base)), [xsave] "i"(offsetof(struct state, xsave)),
	      [mask] "m"(xstate.offered), [cs64] "i"(USER_CS64), [frame] "m"(entry_frame)
	    : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	      "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
	      "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	static const u32 mxcsr = 0x1f80;
	__asm__ volatile("wrgsbase %1\n fninit\n ldmxcsr %0\n cld"
			 :
			 : "m"(mxcsr), "r"(host_gs_base));
}

void native_run(const struct state *in, const struct ldt_entry *ldt, struct state *out)
{
	entry_frame = (typeof(entry_frame)){.rip = in->rip,
					    .cs = in->seg[SEG_CS],
					    .rflags = in->rflags,
					    .rsp = in->regs[4],
					    .ss = in->seg[SEG_SS]};
	memcpy((void *)DATA_BASE, in->data, DATA_SIZE);
	load_ldt(ldt);
	__asm__ volatile("rdgsbase %0" : "=r"(host_gs_base));
	result = out;
	exchange_handlers(true);
	jump_into(in);
	exchange_handlers(false);
	memcpy(out->data, (void *)DATA_BASE, DATA_SIZE);
}
