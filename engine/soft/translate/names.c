/* Names for what host code refers to: stubs, the vCPU's state. */
#include "engine/soft/translate/names.h"

#include <stdio.h>

static const struct {
	const char *name;
	size_t offset; /* in struct stubs */
} stubs[] = {
#define STUB(field)                                                                                \
	{                                                                                          \
#field, offsetof(struct stubs, field)                                              \
	}
    STUB(enter),	STUB(dispatch),	  STUB(leave),	  STUB(exit),
    STUB(exit_parked),	STUB(plain_exit), STUB(indirect), STUB(second),
    STUB(op),		STUB(syscall),	  STUB(sysret),	  STUB(plain_parked),
    STUB(leaves_begin), STUB(op_end),	  STUB(miss),	  STUB(commit),
#undef STUB
};

static const u8 *stub_at(const struct block_cache *cache, size_t n)
{
	return *(const u8 *const *)((const char *)&cache->stubs + stubs[n].offset);
}

const char *stub_name(const struct block_cache *cache, const u8 *rx, u32 *offset)
{
	const char *name = NULL;
	u64 nearest = UINT64_MAX;
	if (rx < cache->rx || rx >= cache->rx + cache->stubs_end)
		return NULL;
	for (size_t n = 0; n < ARRAY_SIZE(stubs); n++) {
		if (stub_at(cache, n) > rx || (u64)(rx - stub_at(cache, n)) >= nearest)
			continue;
		nearest = (u64)(rx - stub_at(cache, n));
		name = stubs[n].name;
	}
	*offset = (u32)nearest;
	return name;
}

static const char *const registers[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15"};

static const char *const mmu_names[MMU_COUNT] = {
    [MMU_USER] = "user", [MMU_KERNEL] = "kernel", [MMU_KERNEL_AC] = "kernel_ac"};

static const struct {
	const char *name;
	size_t offset, size; /* in struct soft_vcpu */
} fields[] = {
#define FIELD(field)                                                                               \
	{                                                                                          \
#field, offsetof(struct soft_vcpu, field), sizeof(((struct soft_vcpu *)0)->field)  \
	}
    FIELD(rip),		 FIELD(next_rip),    FIELD(tmp),	 FIELD(host_rsp),
    FIELD(pending_link), FIELD(arith),	     FIELD(int_shadow),	 FIELD(replay),
    FIELD(stepped),	 FIELD(running),     FIELD(host_mxcsr),	 FIELD(self),
    FIELD(branch_pc),	 FIELD(fault_pc),    FIELD(attention),	 FIELD(heeded),
    FIELD(rflags_sys),	 FIELD(seg_base_fs), FIELD(seg_base_gs), FIELD(io_logged),
    FIELD(io_cursor),	 FIELD(bounce),
#undef FIELD
};

static bool table_name(u64 offset, char *out, u32 size)
{
	static const size_t tlb = offsetof(struct mmu, tlb);
	static const size_t jump = offsetof(struct mmu, jump);
	static const char *const sets[MMU_SETS] = {[MMU_ROOT] = "", [MMU_NONROOT] = "nonroot."};
	if (offset < offsetof(struct soft_vcpu, mmus) ||
	    offset >= offsetof(struct soft_vcpu, mmus) + MMU_SETS * sizeof(struct mmu))
		return false;
	offset -= offsetof(struct soft_vcpu, mmus);
	const char *set = sets[offset / sizeof(struct mmu)];
	offset %= sizeof(struct mmu);
	if (offset >= tlb && offset < tlb + MMU_COUNT * sizeof(struct tlb)) {
		u64 at = (offset - tlb) % sizeof(struct tlb);
		bool write = at >= offsetof(struct tlb, write);
		u64 part = at % sizeof(struct tlb_entry);
		snprintf(out, size, "%stlb.%s.%s.%s", set,
			 mmu_names[(offset - tlb) / sizeof(struct tlb)], write ? "write" : "read",
			 part ? "host" : "tag");
		return true;
	}
	u64 table = JUMP_CACHE_SIZE * sizeof(struct jump_entry);
	if (offset >= jump && offset < jump + MMU_COUNT * table) {
		u64 part = (offset - jump) % sizeof(struct jump_entry);
		snprintf(out, size, "%sjump.%s.%s", set, mmu_names[(offset - jump) / table],
			 part ? "code" : "rip");
		return true;
	}
	return false;
}

bool state_name(u64 offset, char *out, u32 size)
{
	if (offset < sizeof(registers)) {
		u64 part = offset % sizeof(u64);
		snprintf(out, size, part ? "guest.%s+%llu" : "guest.%s",
			 registers[offset / sizeof(u64)], (unsigned long long)part);
		return true;
	}
	for (size_t n = 0; n < ARRAY_SIZE(fields); n++) {
		if (offset < fields[n].offset || offset >= fields[n].offset + fields[n].size)
			continue;
		u64 part = offset - fields[n].offset;
		snprintf(out, size, part ? "%s+%llu" : "%s", fields[n].name,
			 (unsigned long long)part);
		return true;
	}
	return table_name(offset, out, size);
}
