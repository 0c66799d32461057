#include "boot_images.h"

#include <asm/bootparam.h>
#include <bzlib.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

void bytes_put(struct bytes *b, size_t offset, const void *data, size_t size)
{
	if (offset + size > b->size) {
		b->at = realloc(b->at, offset + size);
		assert_non_null(b->at);
		memset(b->at + b->size, 0, offset + size - b->size);
		b->size = offset + size;
	}
	memcpy(b->at + offset, data, size);
}

void bytes_put32(struct bytes *b, size_t offset, u32 value)
{
	bytes_put(b, offset, &value, sizeof(value));
}

void bytes_free(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){0};
}

struct test_file file_of(const void *data, size_t size)
{
	struct test_file file = {.fd = memfd_create("image", MFD_CLOEXEC)};
	assert_true(file.fd >= 0);
	assert_int_equal(write(file.fd, data, size), size);
	snprintf(file.path, sizeof(file.path), "/proc/self/fd/%d", file.fd);
	return file;
}

void file_close(struct test_file *file)
{
	close(file->fd);
}

u32 next_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(*seed >> 33);
}

struct loaded load_image(const struct bytes *image, struct boot_image_request request,
			 u64 memory_size)
{
	struct loaded l = {.ret = 0};
	struct test_file file = file_of(image->at, image->size);
	request.kernel_path = file.path;
	if (!request.cpu_count)
		request.cpu_count = 1;
	assert_int_equal(guest_memory_create(&l.memory, memory_size, &l.err), 0);
	l.ret = boot_load(&request, &l.memory, &l.state, &l.err);
	file_close(&file);
	return l;
}

void unload(struct loaded *loaded)
{
	guest_memory_destroy(&loaded->memory);
}

void *guest(struct loaded *loaded, u64 gpa, u64 size)
{
	void *at = guest_memory_at(&loaded->memory, gpa, size);
	assert_non_null(at);
	return at;
}

u8 kernel_text(u64 offset)
{
	return (u8)(offset * 7 + (offset >> 8) * 3 + 1);
}

#define TEXT_OFFSET 0x1000u
#define DATA_OFFSET (TEXT_OFFSET + KERNEL_TEXT)
#define NOTE_OFFSET (DATA_OFFSET + KERNEL_DATA)

static void put_note(struct bytes *b, u64 entry)
{
	/* Another note ahead of it, whose name and contents need filling up to 4 bytes. */
	const Elf64_Nhdr other = {.n_namesz = 6, .n_descsz = 3, .n_type = 18};
	const Elf64_Nhdr note = {.n_namesz = 4, .n_descsz = 8, .n_type = 18};
	bytes_put(b, NOTE_OFFSET, &other, sizeof(other));
	bytes_put(b, NOTE_OFFSET + 12, "Other", 6);
	bytes_put(b, NOTE_OFFSET + 24, &note, sizeof(note));
	bytes_put(b, NOTE_OFFSET + 36, "Xen", 4);
	bytes_put(b, NOTE_OFFSET + 40, &entry, sizeof(entry));
}

struct bytes make_vmlinux(u64 pvh_entry)
{
	struct bytes b = {0};
	const u64 virt = 0xffffffff80000000ull;
	Elf64_Ehdr ehdr = {
	    .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
	    .e_type = ET_EXEC,
	    .e_machine = EM_X86_64,
	    .e_entry = KERNEL_ENTRY,
	    .e_phoff = sizeof(ehdr),
	    .e_phentsize = sizeof(Elf64_Phdr),
	    .e_phnum = pvh_entry ? 3 : 2};
	Elf64_Phdr phdrs[] = {
	    {.p_type = PT_LOAD,
	     .p_offset = TEXT_OFFSET,
	     .p_vaddr = virt + KERNEL_AT,
	     .p_paddr = KERNEL_AT,
	     .p_filesz = KERNEL_TEXT,
	     .p_memsz = KERNEL_TEXT},
	    {.p_type = PT_LOAD,
	     .p_offset = DATA_OFFSET,
	     .p_vaddr = virt + KERNEL_AT + MIB,
	     .p_paddr = KERNEL_AT + MIB,
	     .p_filesz = KERNEL_DATA,
	     .p_memsz = KERNEL_DATA * 2},
	    {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 48, .p_align = 4},
	};
	bytes_put(&b, 0, &ehdr, sizeof(ehdr));
	bytes_put(&b, sizeof(ehdr), phdrs, sizeof(phdrs[0]) * ehdr.e_phnum);
	u8 text[KERNEL_TEXT], data[KERNEL_DATA];
	for (u64 i = 0; i < KERNEL_TEXT; i++)
		text[i] = kernel_text(i);
	memset(data, 0xda, sizeof(data));
	bytes_put(&b, TEXT_OFFSET, text, sizeof(text));
	bytes_put(&b, DATA_OFFSET, data, sizeof(data));
	if (pvh_entry)
		put_note(&b, pvh_entry);
	return b;
}

struct bytes make_multiboot_elf(u32 flags)
{
	struct bytes b = {0};
	Elf32_Ehdr ehdr = {
	    .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
	    .e_type = ET_EXEC,
	    .e_machine = EM_386,
	    .e_entry = MIB + 12,
	    .e_phoff = sizeof(ehdr),
	    .e_phentsize = sizeof(Elf32_Phdr),
	    .e_phnum = 1};
	Elf32_Phdr phdr = {.p_type = PT_LOAD,
			   .p_offset = 0x1000,
			   .p_vaddr = MIB,
			   .p_paddr = MIB,
			   .p_filesz = 0x200,
			   .p_memsz = 0x3000};
	bytes_put(&b, 0, &ehdr, sizeof(ehdr));
	bytes_put(&b, sizeof(ehdr), &phdr, sizeof(phdr));
	bytes_put32(&b, 0x1000, 0x1badb002);
	bytes_put32(&b, 0x1004, flags);
	bytes_put32(&b, 0x1008, 0u - 0x1badb002 - flags);
	bytes_put32(&b, 0x11fc, 0xabcdef01);
	return b;
}

struct bytes make_multiboot_raw(void)
{
	const u32 flags = BIT(16) | 3, at = 2 * MIB;
	const u32 header[8] = {0x1badb002,  flags,    0u - 0x1badb002 - flags,
			       at + 0x40,   at,	      at + 0x1000,
			       at + 0x2000, at + 0x80};
	struct bytes b = {0};
	bytes_put32(&b, 0x100, 0x11223344); /* the image begins here in the file */
	bytes_put(&b, 0x140, header, sizeof(header));
	bytes_put32(&b, 0x10fc, 0x55667788); /* and ends here */
	bytes_put32(&b, 0x1100, 0x99999999); /* not loaded */
	return b;
}

static struct bytes pack_lzma(const struct bytes *in, bool xz)
{
	struct bytes out = {.at = malloc(in->size + 4096), .size = in->size + 4096};
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_options_lzma options;
	assert_false(lzma_lzma_preset(&options, 1));
	if (xz)
		assert_int_equal(lzma_easy_encoder(&z, 1, LZMA_CHECK_CRC32), LZMA_OK);
	else
		assert_int_equal(lzma_alone_encoder(&z, &options), LZMA_OK);
	z.next_in = in->at;
	z.avail_in = in->size;
	z.next_out = out.at;
	z.avail_out = out.size;
	assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
	out.size = z.total_out;
	lzma_end(&z);
	return out;
}

static struct bytes pack_gzip(const struct bytes *in)
{
	struct bytes out = {.at = malloc(in->size + 4096), .size = in->size + 4096};
	z_stream z = {.next_in = in->at,
		      .avail_in = (uInt)in->size,
		      .next_out = out.at,
		      .avail_out = (uInt)out.size};
	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out.size = z.total_out;
	deflateEnd(&z);
	return out;
}

static struct bytes pack_lz4(const struct bytes *in)
{
	const size_t block = 8 * MIB;
	struct bytes out = {0};
	char *packed = malloc(LZ4_COMPRESSBOUND(8 * MIB));
	bytes_put32(&out, 0, 0x184c2102);
	for (size_t at = 0; at < in->size; at += block) {
		size_t size = in->size - at < block ? in->size - at : block;
		int n = LZ4_compress_default((const char *)in->at + at, packed, (int)size,
					     LZ4_COMPRESSBOUND(8 * MIB));
		assert_true(n > 0);
		bytes_put32(&out, out.size, (u32)n);
		bytes_put(&out, out.size, packed, (size_t)n);
	}
	free(packed);
	return out;
}

static struct bytes pack(enum packing packing, const struct bytes *in)
{
	struct bytes out = {.at = malloc(in->size + 4096), .size = in->size + 4096};
	unsigned int size = (unsigned int)out.size;
	switch (packing) {
	case PACK_BZIP2:
		assert_int_equal(BZ2_bzBuffToBuffCompress((char *)out.at, &size, (char *)in->at,
							  (unsigned int)in->size, 9, 0, 0),
				 BZ_OK);
		out.size = size;
		return out;
	case PACK_ZSTD:
		out.size = ZSTD_compress(out.at, out.size, in->at, in->size, 1);
		assert_false(ZSTD_isError(out.size));
		return out;
	case PACK_UNKNOWN:
		memcpy(out.at, in->at, in->size);
		memcpy(out.at, "\x89LZO", 4);
		out.size = in->size;
		return out;
	default:
		free(out.at);
		return packing == PACK_GZIP  ? pack_gzip(in)
		       : packing == PACK_LZ4 ? pack_lz4(in)
					     : pack_lzma(in, packing == PACK_XZ);
	}
}

struct bytes make_bzimage(enum packing packing, const struct bytes *payload)
{
	struct bytes packed = pack(packing, payload), b = {0};
	if (packing != PACK_GZIP)
		bytes_put32(&packed, packed.size, (u32)payload->size);

	u64 code_size = align_up(BZ_PAYLOAD_OFFSET + packed.size, 16);
	struct setup_header h = {.setup_sects = BZ_CODE / 512 - 1,
				 .syssize = (u32)(code_size / 16),
				 .boot_flag = 0xaa55,
				 .jump = 0x6aeb, /* to 0x26c, behind the header */
				 .header = 0x53726448,
				 .version = 0x20f,
				 .loadflags = LOADED_HIGH | KASLR_FLAG,
				 .initrd_addr_max = 0x7fffffff,
				 .relocatable_kernel = 1,
				 .xloadflags = XLF_KERNEL_64,
				 .cmdline_size = 2047,
				 .payload_offset = BZ_PAYLOAD_OFFSET,
				 .payload_length = (u32)packed.size,
				 .pref_address = KERNEL_AT,
				 .init_size = 4 * MIB};
	bytes_put(&b, 0x1f1, &h, sizeof(h));
	bytes_put(&b, BZ_CODE + 0x200, "entry64", 8);
	bytes_put(&b, BZ_CODE + BZ_PAYLOAD_OFFSET, packed.at, packed.size);
	bytes_put(&b, BZ_CODE + code_size - 1, "", 1);
	bytes_free(&packed);
	return b;
}
