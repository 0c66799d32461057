/* The table of fields.h. Inside. */
#include "engine/soft/vmx/fields.h"

const struct vmx_field_row vmx_fields[VMX_FIELD_COUNT] = {
#define X(n, e) [VMX_##n] = {.name = #n, .encoding = e},
    VMX_FIELDS(X)
#undef X
};

#define INDEXES 32u /* no field has a higher index */

/* 1 + the field of a width, type and index; 0: there is none. */
static const u8 numbers[4][4][INDEXES] = {
#define X(n, e) [VMX_ENCODING_WIDTH(e)][VMX_ENCODING_TYPE(e)][VMX_ENCODING_INDEX(e)] = VMX_##n + 1,
    VMX_FIELDS(X)
#undef X
};

_Static_assert(VMX_FIELD_COUNT <= UINT8_MAX, "numbers of fields are bytes");

int vmx_field_find(u64 encoding)
{
	u64 whole = encoding & ~(u64)VMX_ENCODING_HIGH;
	u64 width = VMX_ENCODING_WIDTH(encoding), index = VMX_ENCODING_INDEX(encoding);

	if (index >= INDEXES)
		return -1;
	int n = numbers[width][VMX_ENCODING_TYPE(encoding)][index] - 1;
	if (n < 0 || vmx_fields[n].encoding != whole)
		return -1;
	/* SDM 3C 25.11.2: only 64-bit fields have a half to name */
	return whole == encoding || width == VMX_WIDTH_64 ? n : -1;
}

u32 vmx_field_highest_index(void)
{
	u32 highest = 0;

	for (u32 n = 0; n < VMX_FIELD_COUNT; n++) {
		u32 index = VMX_ENCODING_INDEX(vmx_fields[n].encoding);
		if (index > highest)
			highest = index;
	}
	return highest;
}
