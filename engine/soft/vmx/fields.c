/* The table of fields.h. Inside. */
#include "engine/soft/vmx/fields.h"

const struct vmx_field_row vmx_fields[VMX_FIELD_COUNT] = {
#define X(n, e) [VMX_##n] = {.name = #n, .encoding = e},
    VMX_FIELDS(X)
#undef X
};

int vmx_field_find(u64 encoding)
{
	u32 low = 0, high = VMX_FIELD_COUNT;
	u64 whole = encoding & ~(u64)VMX_ENCODING_HIGH;

	while (low < high) {
		u32 middle = (low + high) / 2;
		u32 there = vmx_fields[middle].encoding;

		if (whole < there)
			high = middle;
		else if (whole > there)
			low = middle + 1;
		else if (whole != encoding && VMX_ENCODING_WIDTH(there) != VMX_WIDTH_64)
			return -1; /* SDM 3C 25.11.2: only 64-bit fields have a half to name */
		else
			return (int)middle;
	}
	return -1;
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
