/* Instructions as text. */
#include "engine/soft/translate/decode_text.h"

#include <Zydis/Zydis.h>
#include <stdio.h>
#include <string.h>

#include "engine/soft/translate/mode.h"

static const ZydisMachineMode machine[] = {
    [MODE_CODE16] = ZYDIS_MACHINE_MODE_LEGACY_16,
    [MODE_CODE32] = ZYDIS_MACHINE_MODE_LEGACY_32,
    [MODE_CODE64] = ZYDIS_MACHINE_MODE_LONG_64,
};

void decode_text(const u8 *bytes, u32 length, u64 rip, u32 mode, char *out, u32 size)
{
	ZydisDisassembledInstruction text;
	if (ZYAN_SUCCESS(ZydisDisassembleIntel(machine[mode & 3], rip, bytes, length, &text))) {
		size_t n = strnlen(text.text, size - 1);
		memcpy(out, text.text, n);
		out[n] = 0;
	} else if (size) {
		out[0] = 0;
	}
}

/* Replaces the last number of the @length bytes of text at @begin, in the buffer @out, by @name. */
static void replace_number(char *out, u32 size, char *begin, size_t length, const char *name)
{
	char *number = NULL;
	for (char *p = begin; p + 1 < begin + length; p++)
		if (p[0] == '0' && p[1] == 'x')
			number = p;
	if (!number)
		return;
	size_t digits = 2 + strspn(number + 2, "0123456789ABCDEF");
	size_t name_length = strlen(name), rest = strlen(number + digits) + 1;
	if ((size_t)(number - out) + name_length + rest > size)
		return;
	memmove(number + name_length, number + digits, rest);
	memcpy(number, name, name_length);
}

u32 decode_text_host(const u8 *bytes, u32 available, u64 address, const struct text_names *names,
		     char *out, u32 size)
{
	ZydisDisassembledInstruction text;
	char name[64];
	if (!ZYAN_SUCCESS(
		ZydisDisassembleIntel(machine[MODE_CODE64], address, bytes, available, &text)))
		return 0;
	snprintf(out, size, "%s", text.text);
	for (int n = 0; n < text.info.operand_count_visible; n++) {
		const ZydisDecodedOperand *op = &text.operands[n];
		u64 target;
		char *bracket = strstr(out, "gs:[");
		if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op->imm.is_relative &&
		    ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&text.info, op, address, &target)) &&
		    names->code(names->of, target, name, sizeof(name)))
			replace_number(out, size, out, strlen(out), name);
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && bracket &&
		    names->state((u64)op->mem.disp.value, name, sizeof(name)))
			replace_number(out, size, bracket, strcspn(bracket, "]"), name);
	}
	return text.info.length;
}
