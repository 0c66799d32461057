/* Decoding by form: a direct-mapped cache of what Zydis has said, and the filling in of the rest.
 */
#include "engine/soft/translate/form.h"

#include <string.h>
#include <sys/mman.h>

#include "engine/soft/translate/mode.h"

#define CACHE_BITS 12 /* sets */
#define WAYS	   2
#define BYTES_MAX  15 /* of an instruction */

/* Bytes of an instruction, filled up with zeros. Numbers in them are found by shifts: a load of
 * bytes that come from two stores would wait for both. As the key of a form its bytes alone; in the
 * last byte their number and what of the mode decides about decoding. */
struct text {
	u64 low, high;
};

struct decode_cache {
	struct text keys[1u << CACHE_BITS][WAYS];
	struct form forms[1u << CACHE_BITS][WAYS];
	u32 victim; /* way that is overwritten next */
};

struct decode_cache *decode_cache_create(void)
{
	void *p = mmap(NULL, sizeof(struct decode_cache), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void decode_cache_destroy(struct decode_cache *cache)
{
	if (cache)
		munmap(cache, sizeof(*cache));
}

/* ---- the bytes that make a form ---- */

/* Bit per opcode: no ModRM byte follows (SDM 2D tables ). A mistake here costs time only:
 * what Zydis says decides whether a form is kept. */
static const u32 no_modrm[2][8] = {
    {0xf0f0f0f0, 0xf0f0f0f0, 0xffffffff, 0xfffff5f3, 0xffff0000, 0xffffffff, 0x00f0ff0c,
     0x3f3fffff},
    {0x00004bf0, 0x00ff0000, 0x00000000, 0x00800000, 0x0000ffff, 0x00000707, 0x0000ff00,
     0x00000000},
};

static bool has_modrm(u32 map, u8 opcode)
{
	return map > 1 || !(no_modrm[map][opcode / 32] & 1u << (opcode % 32));
}

static bool is_prefix(u8 byte)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return false;
	}
}

/* Number of bytes that make the form; 0: not to be told this simply. @bytes are 16. */
static u32 fixed_length(const u8 *bytes, u32 mode)
{
	u32 n = 0, map = 0;
	bool code64 = (mode & 3) == MODE_CODE64, other_address = false;
	while (unlikely(is_prefix(bytes[n]))) {
		other_address |= bytes[n] == 0x67;
		if (++n > 4)
			return 0;
	}
	n += code64 & ((bytes[n] & 0xf0) == 0x40);
	switch (bytes[n]) {
	case 0x0f:
		n++;
		map = bytes[n] == 0x38 ? 2 : bytes[n] == 0x3a ? 3 : 1;
		n += map > 1;
		break;
	case 0xc4:
	case 0xc5: /* VEX; outside 64-bit mode LES and LDS, which have no register there */
		if (!code64 && (bytes[n + 1] & 0xc0) != 0xc0)
			break;
		map = bytes[n] == 0xc5 ? 1 : bytes[n + 1] & 0x1f;
		if (map < 1 || map > 3)
			return 0;
		n += bytes[n] == 0xc5 ? 2 : 3;
		break;
	case 0x62: /* EVEX, BOUND */
	case 0x8f: /* XOP, POP */
		return 0;
	default:
		break;
	}
	u8 opcode = bytes[n++];
	if (!has_modrm(map, opcode))
		return n;
	u8 modrm = bytes[n++];
	bool address16 =
	    (mode & 3) == MODE_CODE16 ? !other_address : (mode & 3) == MODE_CODE32 && other_address;
	return n + (!address16 && modrm < 0xc0 && (modrm & 7) == 4);
}

/* @size bytes, at most 15. */
static struct text load_text(const u8 *bytes, u32 size)
{
	struct text text = {0};
	if (likely(size == BYTES_MAX)) {
		memcpy(&text.low, bytes, 8);
		memcpy(&text.high, bytes + 7, 8);
		text.high >>= 8;
	} else {
		memcpy(&text, bytes, size);
	}
	return text;
}

/* The first @n of its bytes. */
static struct text first_bytes(struct text key, u32 n)
{
	if (n < 8) {
		key.low &= (1ull << 8 * n) - 1;
		key.high = 0;
	} else {
		key.high &= (1ull << 8 * (n - 8)) - 1;
	}
	return key;
}

static u32 set_of(const struct text *key)
{
	u64 h = (key->low ^ key->high * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
	return (u32)(h >> (64 - CACHE_BITS));
}

/* ---- what differs from place to place ---- */

static u64 number_at(const struct text *text, struct field field)
{
	u32 above = 64 - 8u * field.size, at = 8u * field.offset;
	u64 value =
	    at < 64 ? text->low >> at | text->high << 1 << (63 - at) : text->high >> (at - 64);
	value <<= above;
	return field.is_signed ? (u64)((s64)value >> above) : value >> above;
}

static u64 truncate_rip(u64 rip, u32 bytes)
{
	return bytes == 8 ? rip : bytes == 4 ? (u32)rip : (u16)rip;
}

static void fill_in(const struct form *form, const struct text *text, u64 rip, u32 mode,
		    struct decoded *out)
{
	struct insn *i = &out->insn;
	*out = form->d;
	struct text own = first_bytes(*text, form->d.insn.length);
	memcpy(out->bytes, &own, BYTES_MAX);
	if (form->masks_is4)
		out->bytes[out->tail_offset] &= 0x7f;
	out->rip = rip;
	/* EIP does not wrap at 64 KiB: it passes the limit of a 16-bit segment. */
	out->next_rip = (mode & 3) == MODE_CODE64 ? rip + i->length : (u32)(rip + i->length);
	if (form->disp.size)
		i->disp = (s64)number_at(text, form->disp);
	if (i->rip_relative)
		i->disp += (s64)(rip + i->length);
	if (form->eip_relative)
		i->disp = (s64)(u32)i->disp;
	if (form->imm.size)
		i->imm = number_at(text, form->imm);
	if (form->imm2.size)
		i->imm2 = (u16)number_at(text, form->imm2);
	if (form->branch_size)
		out->target = truncate_rip(rip + i->length + i->imm, form->branch_size);
}

static int fail(const struct form *form, int error, u64 rip, struct decoded *out)
{
	*out = form->d;
	out->rip = rip;
	return error;
}

static const struct form *find_form(const struct decode_cache *cache, u32 set,
				    const struct text *key)
{
	for (u32 way = 0; way < WAYS; way++) {
		const struct text *k = &cache->keys[set][way];
		if (k->low == key->low && k->high == key->high)
			return &cache->forms[set][way];
	}
	return NULL;
}

static void keep_form(struct decode_cache *cache, u32 set, const struct text *key,
		      const struct form *form)
{
	u32 way = cache->victim++ % WAYS;
	cache->keys[set][way] = *key;
	cache->forms[set][way] = *form;
}

int decode(struct decode_cache *cache, const u8 *bytes, u32 available, u64 rip, u32 mode,
	   struct decoded *out)
{
	struct form form;
	struct text key;
	if (available > BYTES_MAX)
		available = BYTES_MAX;
	/* Read once: it is guest memory, which others may write meanwhile. */
	struct text text = load_text(bytes, available);

	u32 fixed = cache ? fixed_length((const u8 *)&text, mode) : 0, set = 0;
	const struct form *known = NULL;
	if (fixed && fixed <= available) {
		key = first_bytes(text, fixed);
		key.high |= (u64)(fixed | (mode & 3) << 4 | (mode & MODE_STACK32 ? 0x80 : 0)) << 56;
		set = set_of(&key);
		known = find_form(cache, set, &key);
	}
	if (known && known->d.insn.length <= available) {
		fill_in(known, &text, rip, mode, out);
		return 0;
	}
	int r = decode_form((const u8 *)&text, available, mode, &form);
	if (r)
		return fail(&form, r, rip, out);
	fill_in(&form, &text, rip, mode, out);
	if (fixed && form.fixed == fixed)
		keep_form(cache, set, &key, &form);
	return 0;
}
