#include "boot/elf_image.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"

bool elf_is(const u8 *head, size_t size)
{
	return size >= EI_NIDENT && !memcmp(head, ELFMAG, SELFMAG);
}

/** The headers of both classes, in the wider form. */
static Elf64_Ehdr widen_ehdr(const u8 *head, bool is64)
{
	Elf64_Ehdr wide;
	Elf32_Ehdr h;
	if (is64) {
		memcpy(&wide, head, sizeof(wide));
		return wide;
	}
	memcpy(&h, head, sizeof(h));
	return (Elf64_Ehdr){.e_type = h.e_type,
			    .e_machine = h.e_machine,
			    .e_entry = h.e_entry,
			    .e_phoff = h.e_phoff,
			    .e_phentsize = h.e_phentsize,
			    .e_phnum = h.e_phnum};
}

static Elf64_Phdr widen_phdr(const u8 *at, bool is64)
{
	Elf64_Phdr wide;
	Elf32_Phdr p;
	if (is64) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&p, at, sizeof(p));
	return (Elf64_Phdr){.p_type = p.p_type,
			    .p_offset = p.p_offset,
			    .p_vaddr = p.p_vaddr,
			    .p_paddr = p.p_paddr,
			    .p_filesz = p.p_filesz,
			    .p_memsz = p.p_memsz,
			    .p_align = p.p_align};
}

static int add_segment(struct elf_image *elf, const Elf64_Phdr *p, u64 file_size, struct error *err)
{
	struct elf_segment segment = {.offset = p->p_offset,
				      .file_size = p->p_filesz,
				      .gpa = p->p_paddr,
				      .size = p->p_memsz,
				      .virt = p->p_vaddr,
				      .align = p->p_align};
	if (p->p_offset > file_size || p->p_filesz > file_size - p->p_offset)
		return error_set(err, EBADMSG, "truncated: a segment ends past the file's end");
	if (p->p_type == PT_NOTE) {
		if (elf->note_count < ARRAY_SIZE(elf->notes))
			elf->notes[elf->note_count++] = segment;
		return 0;
	}
	if (p->p_memsz == 0)
		return 0;
	if (p->p_filesz > p->p_memsz || p->p_paddr + p->p_memsz < p->p_paddr)
		return error_set(err, EBADMSG, "a segment of impossible size");
	if (elf->segment_count == ELF_SEGMENTS_MAX)
		return error_set(err, ENOEXEC, "more than %d segments", ELF_SEGMENTS_MAX);
	elf->segments[elf->segment_count++] = segment;
	return 0;
}

int elf_parse(struct elf_image *elf, const u8 *head, size_t head_size, u64 file_size,
	      struct error *err)
{
	*elf = (struct elf_image){0};
	if (!elf_is(head, head_size))
		return error_set(err, ENOEXEC, "no ELF image");
	elf->is64 = head[EI_CLASS] == ELFCLASS64;
	if ((!elf->is64 && head[EI_CLASS] != ELFCLASS32) || head[EI_DATA] != ELFDATA2LSB)
		return error_set(err, ENOEXEC, "an ELF image of no x86 kind");
	if (head_size < (elf->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return error_set(err, EBADMSG, "truncated inside its ELF header");

	Elf64_Ehdr ehdr = widen_ehdr(head, elf->is64);
	if (ehdr.e_machine != EM_X86_64 && ehdr.e_machine != EM_386)
		return error_set(err, ENOEXEC, "an ELF image for another machine (%u)",
				 ehdr.e_machine);
	if (ehdr.e_type != ET_EXEC)
		return error_set(err, ENOEXEC, "an ELF file, but not an executable image");
	size_t entry_size = elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (ehdr.e_phentsize != entry_size || ehdr.e_phnum == 0)
		return error_set(err, ENOEXEC, "no ELF program headers");
	if (ehdr.e_phoff > head_size || ehdr.e_phnum * entry_size > head_size - ehdr.e_phoff)
		return error_set(err, EBADMSG, "truncated inside its ELF program headers");
	elf->entry = ehdr.e_entry;

	for (u32 i = 0; i < ehdr.e_phnum; i++) {
		Elf64_Phdr p = widen_phdr(head + ehdr.e_phoff + i * entry_size, elf->is64);
		if (p.p_type != PT_LOAD && p.p_type != PT_NOTE)
			continue;
		int ret = add_segment(elf, &p, file_size, err);
		if (ret)
			return ret;
	}
	if (!elf->segment_count)
		return error_set(err, ENOEXEC, "no ELF segment to load");
	return 0;
}

bool elf_holds(const struct elf_image *elf, u64 gpa)
{
	for (u32 i = 0; i < elf->segment_count; i++) {
		const struct elf_segment *s = &elf->segments[i];
		if (gpa >= s->gpa && gpa - s->gpa < s->file_size)
			return true;
	}
	return false;
}

bool elf_entry(const struct elf_image *elf, u64 *gpa)
{
	if (elf_holds(elf, elf->entry)) {
		*gpa = elf->entry;
		return true;
	}
	for (u32 i = 0; i < elf->segment_count; i++) {
		const struct elf_segment *s = &elf->segments[i];
		if (elf->entry >= s->virt && elf->entry - s->virt < s->file_size) {
			*gpa = elf->entry - s->virt + s->gpa;
			return true;
		}
	}
	return false;
}

bool elf_note(const u8 *data, size_t size, u64 align, const char *name, u32 type, u64 *value)
{
	u64 unit = align == 8 ? 8 : 4;
	u64 at = 0;
	while (at <= size && size - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note; /* the same in both classes */
		memcpy(&note, data + at, sizeof(note));
		u64 name_at = at + sizeof(note);
		u64 desc_at = align_up(name_at + note.n_namesz, unit);
		u64 end = desc_at + note.n_descsz;
		if (end > size)
			return false;
		if (note.n_type == type && note.n_namesz == strlen(name) + 1 &&
		    !memcmp(data + name_at, name, note.n_namesz) &&
		    (note.n_descsz == 4 || note.n_descsz == 8)) {
			*value = 0;
			memcpy(value, data + desc_at, note.n_descsz);
			return true;
		}
		at = align_up(end, unit);
	}
	return false;
}
