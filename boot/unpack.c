/*
 * Formats of Linux's arch/x86/boot/compressed/Makefile, by their magic numbers
 * (Documentation/arch/x86/boot.rst, payload_offset). LZO is left to the guest's own decompressor.
 */
#include "boot/unpack.h"

#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "boot/bulk.h"

#define PIECE_SIZE (256u << 10)
#define LZ4_BLOCK_SIZE                                                                             \
	(8 << 20) /* of the legacy frame: every block but the last unpacks to this                 \
		   */
#define LZMA_MEMORY (512ull << 20) /* what a decoder may take; kernels use 32 or 64 MiB */

struct unpack_stream {
	const struct unpack_format *format;
	const u8 *in; /* without the size that the kernel's build adds */
	size_t in_size;
	u64 expected, produced; /* bytes */
	u8 *piece;		/* piece_size bytes of output */
	unpack_sink sink;
	void *opaque;
	struct error *err;
};

struct unpack_format {
	const char *name;
	u8 magic[6];
	u8 magic_size;
	bool checked;
	bool size_added; /* the build adds the size; else it belongs to the stream */
	size_t piece_size;
	int (*run)(struct unpack_stream *s);
};

static int damaged(const struct unpack_stream *s, const char *why)
{
	return error_set(s->err, EBADMSG, "its %s payload is damaged (%s)", s->format->name, why);
}

static int no_memory(const struct unpack_stream *s)
{
	return error_set(s->err, ENOMEM, "out of memory unpacking its %s payload", s->format->name);
}

static int emit(struct unpack_stream *s, size_t size)
{
	if (size > s->expected - s->produced)
		return damaged(s, "it is longer than it says");
	s->produced += size;
	return size ? s->sink(s->opaque, s->piece, size, s->err) : 0;
}

static int run_gzip(struct unpack_stream *s)
{
	z_stream z = {.next_in = (u8 *)s->in, .avail_in = (uInt)s->in_size};
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) /* 16: gzip header and checksum */
		return no_memory(s);
	int ret = 0, code = Z_OK;
	while (!ret && code == Z_OK) {
		z.next_out = s->piece;
		z.avail_out = PIECE_SIZE;
		code = inflate(&z, Z_NO_FLUSH);
		ret = emit(s, PIECE_SIZE - z.avail_out);
	}
	if (!ret && code != Z_STREAM_END)
		ret = damaged(s, z.msg ? z.msg : "it ends early");
	inflateEnd(&z);
	return ret;
}

static int run_bzip2(struct unpack_stream *s)
{
	bz_stream z = {.next_in = (char *)s->in, .avail_in = (unsigned int)s->in_size};
	if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
		return no_memory(s);
	int ret = 0, code = BZ_OK;
	while (!ret && code == BZ_OK) {
		z.next_out = (char *)s->piece;
		z.avail_out = PIECE_SIZE;
		code = BZ2_bzDecompress(&z);
		if (code == BZ_OK && !z.avail_in && z.avail_out == PIECE_SIZE)
			break; /* nothing in, nothing out: it will never end */
		ret = emit(s, PIECE_SIZE - z.avail_out);
	}
	if (!ret && code != BZ_STREAM_END)
		ret = damaged(s, code == BZ_OK ? "it ends early" : "bad block");
	BZ2_bzDecompressEnd(&z);
	return ret;
}

static int run_lzma_decoder(struct unpack_stream *s, lzma_stream *z)
{
	z->next_in = s->in;
	z->avail_in = s->in_size;
	int ret = 0;
	lzma_ret code = LZMA_OK;
	while (!ret && code == LZMA_OK) {
		z->next_out = s->piece;
		z->avail_out = PIECE_SIZE;
		code = lzma_code(z, LZMA_FINISH);
		ret = emit(s, PIECE_SIZE - z->avail_out);
	}
	lzma_end(z);
	if (ret || code == LZMA_STREAM_END)
		return ret;
	if (code == LZMA_MEM_ERROR)
		return no_memory(s);
	return damaged(s, code == LZMA_MEMLIMIT_ERROR ? "its dictionary is too large"
			  : code == LZMA_BUF_ERROR    ? "it ends early"
						      : "bad data");
}

static int run_xz(struct unpack_stream *s)
{
	lzma_stream z = LZMA_STREAM_INIT;
	return lzma_stream_decoder(&z, LZMA_MEMORY, 0) == LZMA_OK ? run_lzma_decoder(s, &z)
								  : no_memory(s);
}

static int run_lzma(struct unpack_stream *s)
{
	lzma_stream z = LZMA_STREAM_INIT;
	return lzma_alone_decoder(&z, LZMA_MEMORY) == LZMA_OK ? run_lzma_decoder(s, &z)
							      : no_memory(s);
}

static int run_zstd(struct unpack_stream *s)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	if (!z)
		return no_memory(s);
	ZSTD_inBuffer in = {.src = s->in, .size = s->in_size};
	int ret = 0;
	size_t code = 1; /* 0: the frame is complete */
	while (!ret && code && !ZSTD_isError(code)) {
		ZSTD_outBuffer out = {.dst = s->piece, .size = PIECE_SIZE};
		size_t before = in.pos;
		code = ZSTD_decompressStream(z, &out, &in);
		if (!ZSTD_isError(code) && code && in.pos == before && !out.pos)
			break; /* no progress: the input ends inside a frame */
		ret = emit(s, out.pos);
	}
	if (!ret && code)
		ret = damaged(s, ZSTD_isError(code) ? ZSTD_getErrorName(code) : "it ends early");
	ZSTD_freeDStream(z);
	return ret;
}

/* LZ4's legacy frame (lz4_Frame_format.md): the magic, then blocks with their packed size. */
static int run_lz4(struct unpack_stream *s)
{
	size_t at = 4;
	while (at < s->in_size) {
		u32 packed;
		if (s->in_size - at < sizeof(packed))
			return damaged(s, "it ends early");
		memcpy(&packed, s->in + at, sizeof(packed));
		at += sizeof(packed);
		if (packed == 0 || packed > s->in_size - at ||
		    packed > LZ4_COMPRESSBOUND(LZ4_BLOCK_SIZE))
			return damaged(s, "bad block size");
		int size = LZ4_decompress_safe((const char *)s->in + at, (char *)s->piece,
					       (int)packed, LZ4_BLOCK_SIZE);
		if (size < 0)
			return damaged(s, "bad block");
		at += packed;
		int ret = emit(s, (size_t)size);
		if (ret)
			return ret;
	}
	return 0;
}

static const struct unpack_format formats[] = {
    {"gzip", {0x1f, 0x8b}, 2, true, false, PIECE_SIZE, run_gzip},
    {"bzip2", {'B', 'Z', 'h'}, 3, true, true, PIECE_SIZE, run_bzip2},
    {"LZMA", {0x5d, 0x00, 0x00}, 3, false, true, PIECE_SIZE, run_lzma},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0x00}, 6, true, true, PIECE_SIZE, run_xz},
    {"LZ4", {0x02, 0x21, 0x4c, 0x18}, 4, false, true, LZ4_BLOCK_SIZE, run_lz4},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, true, true, PIECE_SIZE, run_zstd},
};

const struct unpack_format *unpack_identify(const u8 *data, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (size >= formats[i].magic_size &&
		    !memcmp(data, formats[i].magic, formats[i].magic_size))
			return &formats[i];
	return NULL;
}

bool unpack_is_checked(const struct unpack_format *format)
{
	return format->checked;
}

const char *unpack_name(const struct unpack_format *format)
{
	return format->name;
}

int unpack(const struct unpack_format *format, const u8 *data, size_t size, unpack_sink sink,
	   void *opaque, struct error *err)
{
	struct unpack_stream s = {
	    .format = format, .in = data, .sink = sink, .opaque = opaque, .err = err};
	u32 expected;
	if (size < sizeof(expected) + format->magic_size || size > UINT32_MAX)
		return damaged(&s, "its size is impossible");
	memcpy(&expected, data + size - sizeof(expected), sizeof(expected));
	s.expected = expected;
	s.in_size = format->size_added ? size - sizeof(expected) : size;
	s.piece = bulk_alloc(format->piece_size);
	if (!s.piece)
		return no_memory(&s);
	int ret = format->run(&s);
	if (!ret && s.produced != s.expected)
		ret = damaged(&s, "it is shorter than it says");
	bulk_free(s.piece, format->piece_size);
	return ret;
}
