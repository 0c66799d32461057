/* Where the server listens: the option's text, TCP and Unix sockets. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "gdb/internal.h"

#define TCP	 "tcp:"
#define UNIX	 "unix:"
#define LOOPBACK "127.0.0.1"
#define BACKLOG	 8

/* ---- the option ---- */

static int parse_arch(enum gdb_arch *arch, const char *name, size_t length, struct error *err)
{
	static const struct {
		const char *name;
		enum gdb_arch arch;
	} known[] = {
	    {"x86-64", GDB_ARCH_X86_64},
	    {"i386", GDB_ARCH_I386},
	    {"i8086", GDB_ARCH_I8086},
	};

	for (size_t n = 0; n < ARRAY_SIZE(known); n++) {
		if (strlen(known[n].name) == length && !strncmp(known[n].name, name, length)) {
			*arch = known[n].arch;
			return 0;
		}
	}
	return error_set(err, EINVAL, "gdb: unknown arch '%.*s'; known: x86-64, i386, i8086",
			 (int)length, name);
}

int gdb_config_parse(struct gdb_config *config, const char *text, struct error *err)
{
	size_t length = strcspn(text, ",");

	*config = (struct gdb_config){.wait = true, .arch = GDB_ARCH_AUTO};
	if (strncmp(text, TCP, strlen(TCP)) && strncmp(text, UNIX, strlen(UNIX)))
		return error_set(err, EINVAL, "gdb: '%s' is neither tcp:[HOST:]PORT nor unix:PATH",
				 text);
	if (length >= sizeof(config->address))
		return error_set(err, EINVAL, "gdb: the address is longer than %zu bytes",
				 sizeof(config->address) - 1);
	memcpy(config->address, text, length);
	for (const char *p = text + length; *p; p += length) {
		length = strcspn(++p, ",");
		int ret = 0;
		if (length == 6 && !strncmp(p, "nowait", 6))
			config->wait = false;
		else if (!strncmp(p, "arch=", 5))
			ret = parse_arch(&config->arch, p + 5, length - 5, err);
		else
			ret = error_set(err, EINVAL,
					"gdb: unknown word '%.*s'; known: nowait, arch=NAME",
					(int)length, p);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* ---- TCP ---- */

/** "HOST:PORT", "[HOST]:PORT" or "PORT" taken apart, in @text itself. */
static void split(char *text, const char **host, const char **port)
{
	char *colon = strrchr(text, ':');

	*host = LOOPBACK;
	*port = text;
	if (!colon)
		return;
	*colon = 0;
	*port = colon + 1;
	*host = text;
	if (text[0] == '[' && colon > text && colon[-1] == ']') {
		colon[-1] = 0;
		*host = text + 1;
	}
}

static bool is_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return digits && digits <= 5 && !text[digits] && atoi(text) <= UINT16_MAX;
}

/** The port that was bound, which differs from what was asked for if that was 0. */
static u32 bound_port(int fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return 0;
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static int listen_tcp(struct gdb *gdb, struct error *err)
{
	char text[sizeof(gdb->config.address)];
	const char *host, *port;
	struct addrinfo hints = {
	    .ai_socktype = SOCK_STREAM,
	    .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	struct addrinfo *found;
	int on = 1;

	strcpy(text, gdb->config.address + strlen(TCP));
	split(text, &host, &port);
	if (!is_port(port))
		return error_set(err, EINVAL, "gdb: '%s' is no TCP port; they go from 0 to %u",
				 port, UINT16_MAX);
	int ret = getaddrinfo(host, port, &hints, &found);
	if (ret)
		return error_set(err, EINVAL, "gdb: cannot listen at '%s': %s", gdb->config.address,
				 gai_strerror(ret));
	gdb->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (gdb->listen_fd < 0 ||
	    setsockopt(gdb->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    /* Handed down to connections: packets are small and wait for each other. */
	    setsockopt(gdb->listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    bind(gdb->listen_fd, found->ai_addr, found->ai_addrlen) < 0 ||
	    listen(gdb->listen_fd, BACKLOG) < 0)
		ret = error_errno(err, errno, "gdb: cannot listen at '%s'", gdb->config.address);
	freeaddrinfo(found);
	if (ret == 0)
		snprintf(gdb->address, sizeof(gdb->address),
			 strchr(host, ':') ? TCP "[%s]:%u" : TCP "%s:%u", host,
			 bound_port(gdb->listen_fd));
	return ret;
}

/* ---- Unix ---- */

/** Removes the socket that a process which is gone has left behind. */
static void remove_stale(const struct sockaddr_un *address)
{
	struct stat st;

	if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(address->sun_path);
	close(fd);
}

static int listen_unix(struct gdb *gdb, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = gdb->config.address + strlen(UNIX);

	if (!*path || strlen(path) >= sizeof(address.sun_path))
		return error_set(err, EINVAL, "gdb: a socket's path has 1 to %zu bytes",
				 sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	remove_stale(&address);
	gdb->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (gdb->listen_fd < 0 ||
	    bind(gdb->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, errno, "gdb: cannot listen at '%s'", gdb->config.address);
	gdb->unix_path = strdup(path);
	if (!gdb->unix_path || listen(gdb->listen_fd, BACKLOG) < 0)
		return error_errno(err, errno, "gdb: cannot listen at '%s'", gdb->config.address);
	snprintf(gdb->address, sizeof(gdb->address), "%s", gdb->config.address);
	return 0;
}

int gdb_listen(struct gdb *gdb, struct error *err)
{
	if (!strncmp(gdb->config.address, TCP, strlen(TCP)))
		return listen_tcp(gdb, err);
	return listen_unix(gdb, err);
}
