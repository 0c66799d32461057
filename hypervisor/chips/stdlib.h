/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#include <linux/slab.h>

#define calloc(count, bytes) kvcalloc(count, bytes, GFP_KERNEL_ACCOUNT)
#define free(memory)	     kvfree(memory)
