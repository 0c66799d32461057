/* The packets of the remote protocol (gdb's manual, E.2 to E.5), one function each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gdb/internal.h"
#include "gdb/vmx.h"

/* Bytes of memory in one reply. */
#define MEMORY_MAX (PACKET_MAX / 2 - 16)
/* Bytes of a monitor command's output in one packet. */
#define OUTPUT_MAX 1024u

enum { ERROR_PACKET = 1, ERROR_MEMORY = 14, ERROR_VALUE = 22, ERROR_ROOM = 28 };

struct command {
	struct gdb *gdb;
	char *data; /* what follows the command's name */
	u32 length; /* bytes of it */
	struct text reply;
	bool silent; /* the reply comes later, or never */
};

static void error(struct command *c, u32 number)
{
	c->reply.used = 0;
	text_add(&c->reply, "E%02x", number);
}

static void ok(struct command *c)
{
	text_add(&c->reply, "OK");
}

/** OK, or the error that @ret stands for; -ENOTSUP is the empty reply. */
static void ok_or_error(struct command *c, int ret)
{
	if (ret == 0)
		ok(c);
	else if (ret == -EFAULT)
		error(c, ERROR_MEMORY);
	else if (ret == -ENOSPC)
		error(c, ERROR_ROOM);
	else if (ret != -ENOTSUP)
		error(c, ERROR_VALUE);
}

/** Reads a number and the character behind it, at which *p then stands no more. */
static bool number_then(const char **p, char behind, u64 *value)
{
	if (!hex_number(p, value) || **p != behind)
		return false;
	if (behind)
		(*p)++;
	return true;
}

/* ---- threads: vCPU n is thread n + 1 ---- */

/** A thread id: a vCPU, or -1 for all and -2 for any. false: there is no such thread. */
static bool read_thread(const struct gdb *gdb, const char **p, int *cpu)
{
	u64 id;

	if (!strncmp(*p, "-1", 2)) {
		*p += 2;
		*cpu = -1;
		return true;
	}
	if (!hex_number(p, &id) || id > gdb->machine.cpu_count)
		return false;
	*cpu = id ? (int)id - 1 : -2;
	return true;
}

static void set_thread(struct command *c) /* H */
{
	const char *p = c->data + 1;
	int cpu;

	if (!c->length || !read_thread(c->gdb, &p, &cpu)) {
		error(c, ERROR_PACKET);
		return;
	}
	if (c->data[0] == 'g' && cpu >= 0)
		c->gdb->cpu = (u32)cpu;
	ok(c);
}

static void is_alive(struct command *c) /* T */
{
	const char *p = c->data;
	int cpu;

	if (read_thread(c->gdb, &p, &cpu))
		ok(c);
	else
		error(c, ERROR_PACKET);
}

static void first_threads(struct command *c) /* qfThreadInfo */
{
	for (u32 n = 0; n < c->gdb->machine.cpu_count; n++)
		text_add(&c->reply, "%s%x", n ? "," : "m", n + 1);
}

static void more_threads(struct command *c) /* qsThreadInfo */
{
	text_add(&c->reply, "l");
}

static void current_thread(struct command *c) /* qC */
{
	text_add(&c->reply, "QC%x", c->gdb->cpu + 1);
}

static void describe_thread(struct command *c) /* qThreadExtraInfo */
{
	const struct gdb_machine *m = &c->gdb->machine;
	struct kvm_mp_state mp;
	const char *p = c->data;
	const char *state = "runnable";
	char text[64];
	int cpu;

	if (!read_thread(c->gdb, &p, &cpu) || cpu < 0) {
		error(c, ERROR_PACKET);
		return;
	}
	if (m->engine->vcpu_get_mp_state(m->cpus[cpu], &mp) < 0)
		state = "unknown";
	else if (mp.mp_state == KVM_MP_STATE_HALTED)
		state = "halted";
	else if (mp.mp_state != KVM_MP_STATE_RUNNABLE)
		state = "waits for SIPI";
	snprintf(text, sizeof(text), "vCPU %d [%s%s]", cpu, state,
		 vmx_in_guest(c->gdb, (u32)cpu) ? ", VMX non-root" : "");
	text_hex(&c->reply, text, strlen(text));
}

/* ---- registers ---- */

static void read_registers(struct command *c) /* g */
{
	int ret = registers_read_all(c->gdb, &c->reply);
	if (ret < 0)
		ok_or_error(c, ret);
}

static void write_registers(struct command *c) /* G */
{
	ok_or_error(c, registers_write_all(c->gdb, c->data, c->length));
}

static void read_register(struct command *c) /* p */
{
	const char *p = c->data;
	u64 number;

	int ret = number_then(&p, 0, &number) ? register_read(c->gdb, number, &c->reply) : -EINVAL;
	if (ret < 0)
		error(c, ERROR_VALUE);
}

static void write_register(struct command *c) /* P */
{
	const char *p = c->data;
	u64 number;

	if (!number_then(&p, '=', &number))
		error(c, ERROR_PACKET);
	else
		ok_or_error(c, register_write(c->gdb, number, p, strlen(p)));
}

/* ---- memory ---- */

static bool read_range(const char **p, char behind, u64 *address, u64 *length)
{
	return number_then(p, ',', address) && number_then(p, behind, length);
}

static void read_memory(struct command *c) /* m */
{
	u8 bytes[MEMORY_MAX];
	const char *p = c->data;
	u64 address, length;

	if (!read_range(&p, 0, &address, &length)) {
		error(c, ERROR_PACKET);
		return;
	}
	if (length > sizeof(bytes))
		length = sizeof(bytes);
	u64 got = memory_read(c->gdb, c->gdb->physical, address, bytes, length);
	if (!got && length)
		error(c, ERROR_MEMORY);
	else
		text_hex(&c->reply, bytes, got);
}

static void write_memory(struct command *c) /* M */
{
	u8 bytes[PACKET_MAX / 2];
	const char *p = c->data;
	u64 address, length;

	if (!read_range(&p, ':', &address, &length) || length > sizeof(bytes) ||
	    strlen(p) != 2 * length || !hex_bytes(p, bytes, length))
		error(c, ERROR_PACKET);
	else
		ok_or_error(c, memory_write(c->gdb, c->gdb->physical, address, bytes, length));
}

static void write_memory_binary(struct command *c) /* X */
{
	const char *p = c->data;
	u64 address, length;

	if (!read_range(&p, ':', &address, &length) || length != c->length - (u64)(p - c->data))
		error(c, ERROR_PACKET);
	else
		ok_or_error(c, memory_write(c->gdb, c->gdb->physical, address, p, length));
}

static void get_physical(struct command *c) /* qqemu.PhyMemMode */
{
	text_add(&c->reply, "%d", c->gdb->physical);
}

static void set_physical(struct command *c) /* Qqemu.PhyMemMode: */
{
	const char *p = c->data;
	u64 on;

	if (!number_then(&p, 0, &on)) {
		error(c, ERROR_PACKET);
		return;
	}
	c->gdb->physical = on != 0;
	ok(c);
}

/* ---- breakpoints ---- */

static void change_breakpoint(struct command *c, int (*change)(struct gdb *, char, u64, u64))
{
	const char *p = c->data + 2;
	u64 address, length;
	bool complete = c->length > 2 && c->data[1] == ',' && number_then(&p, ',', &address) &&
			hex_number(&p, &length);

	/* What may follow are conditions that the stub has not offered to check. */
	if (!complete || *p)
		error(c, ERROR_PACKET);
	else
		ok_or_error(c, change(c->gdb, c->data[0], address, length));
}

static void insert_breakpoint(struct command *c) /* Z */
{
	change_breakpoint(c, breakpoint_insert);
}

static void remove_breakpoint(struct command *c) /* z */
{
	change_breakpoint(c, breakpoint_remove);
}

/* ---- going on ---- */

static void go(struct command *c)
{
	c->gdb->report_due = true;
	int ret = gdb_resume(c->gdb);
	c->silent = ret == 0;
	if (ret < 0) {
		c->gdb->report_due = false;
		error(c, ERROR_VALUE);
	}
}

/** vCPU gdb->cpu does @action, the others run. A step leaves them at rest, as gdb expects of a
 * target that is asked to step over a breakpoint. */
static void go_one(struct command *c, enum cpu_action action, const char *address)
{
	const struct gdb_machine *m = &c->gdb->machine;
	struct kvm_regs regs;
	u64 rip;

	if (*address) {
		if (!number_then(&address, 0, &rip) ||
		    m->engine->vcpu_get_regs(gdb_cpu(c->gdb), &regs) < 0) {
			error(c, ERROR_PACKET);
			return;
		}
		regs.rip = rip;
		if (m->engine->vcpu_set_regs(gdb_cpu(c->gdb), &regs) < 0) {
			error(c, ERROR_VALUE);
			return;
		}
	}
	for (u32 n = 0; n < m->cpu_count; n++)
		c->gdb->cpus[n].action = action == CPU_RUN ? CPU_RUN : CPU_HOLD;
	c->gdb->cpus[c->gdb->cpu].action = action;
	go(c);
}

/** Signals mean nothing to a machine: C and S are c and s. */
static const char *behind_signal(const char *data)
{
	const char *semicolon = strchr(data, ';');
	return semicolon ? semicolon + 1 : "";
}

static void go_on(struct command *c) /* c */
{
	go_one(c, CPU_RUN, c->data);
}

static void go_on_signal(struct command *c) /* C */
{
	go_one(c, CPU_RUN, behind_signal(c->data));
}

static void step(struct command *c) /* s */
{
	go_one(c, CPU_STEP, c->data);
}

static void step_signal(struct command *c) /* S */
{
	go_one(c, CPU_STEP, behind_signal(c->data));
}

/** One action of vCont, of those to which it applies the first counts. false: not understood. */
static bool take_action(struct gdb *gdb, const char **p, bool decided[GDB_CPUS_MAX])
{
	enum cpu_action action = **p == 'c' || **p == 'C' ? CPU_RUN : CPU_STEP;
	bool has_signal = **p == 'C' || **p == 'S';
	int cpu = -1;
	u64 signal;

	if (!strchr("cCsS", **p) || !**p)
		return false;
	(*p)++;
	if (has_signal && !hex_number(p, &signal))
		return false;
	if (**p == ':') {
		(*p)++;
		if (!read_thread(gdb, p, &cpu))
			return false;
		if (cpu == -2)
			cpu = (int)gdb->cpu;
	}
	for (u32 n = 0; n < gdb->machine.cpu_count; n++) {
		if (decided[n] || (cpu >= 0 && (u32)cpu != n))
			continue;
		decided[n] = true;
		gdb->cpus[n].action = action;
	}
	return **p == ';' || !**p;
}

static void go_threads(struct command *c) /* vCont */
{
	bool decided[GDB_CPUS_MAX] = {false};
	const char *p = c->data;
	bool any = false;

	for (u32 n = 0; n < GDB_CPUS_MAX; n++)
		c->gdb->cpus[n].action = CPU_HOLD;
	while (*p == ';') {
		p++;
		if (!take_action(c->gdb, &p, decided)) {
			error(c, ERROR_PACKET);
			return;
		}
		any = true;
	}
	if (!any || *p)
		error(c, ERROR_PACKET);
	else
		go(c);
}

static void go_actions(struct command *c) /* vCont? */
{
	text_add(&c->reply, "vCont;c;C;s;S");
}

static void why_stopped(struct command *c) /* ? */
{
	gdb_stop_reply(c->gdb, &c->reply);
}

static void detach(struct command *c) /* D */
{
	struct text reply = {0};

	/* First the answer: a machine that has failed is gone when it is let go. */
	c->silent = true;
	text_add(&reply, "OK");
	gdb_send(c->gdb, &reply);
	text_free(&reply);
	c->gdb->detached = true;
	gdb_release(c->gdb);
}

static void kill_machine(struct command *c) /* k */
{
	c->silent = true;
	c->gdb->looking = false;
	c->gdb->machine.ops->kill(c->gdb->machine.opaque);
}

static void kill_process(struct command *c) /* vKill */
{
	c->gdb->looking = false;
	c->gdb->machine.ops->kill(c->gdb->machine.opaque);
	ok(c);
}

/* ---- questions ---- */

static void supported(struct command *c) /* qSupported */
{
	struct gdb *gdb = c->gdb;

	gdb->knows_swbreak = strstr(c->data, "swbreak+") != NULL;
	gdb->knows_hwbreak = strstr(c->data, "hwbreak+") != NULL;
	text_add(&c->reply,
		 "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+"
		 ";swbreak+;hwbreak+",
		 PACKET_MAX);
}

static void no_ack(struct command *c) /* QStartNoAckMode */
{
	c->gdb->no_ack = true;
	ok(c);
}

static void features(struct command *c) /* qXfer:features:read: */
{
	const struct text *xml = &c->gdb->description;
	const char *p = strchr(c->data, ':');
	u64 offset, length;

	if (!p || strncmp(c->data, "target.xml:", 11)) {
		error(c, 0);
		return;
	}
	p++;
	if (!read_range(&p, 0, &offset, &length) || offset > xml->used) {
		error(c, ERROR_PACKET);
		return;
	}
	u64 rest = xml->used - offset;
	if (length > PACKET_MAX / 2)
		length = PACKET_MAX / 2; /* escapes may double it */
	text_add(&c->reply, "%s", length < rest ? "m" : "l");
	text_escaped(&c->reply, xml->bytes + offset, length < rest ? length : rest);
}

static void is_attached(struct command *c) /* qAttached: detach at the end, do not kill */
{
	text_add(&c->reply, "1");
}

static void monitor(struct command *c) /* qRcmd, */
{
	struct text out = {0};
	char *line = calloc(1, c->length / 2 + 1);

	if (!line || c->length % 2 || !hex_bytes(c->data, line, c->length / 2)) {
		free(line);
		error(c, ERROR_PACKET);
		return;
	}
	monitor_command(c->gdb, line, &out);
	for (size_t done = 0, piece; done < out.used; done += piece) {
		struct text packet = {0};
		piece = out.used - done < OUTPUT_MAX ? out.used - done : OUTPUT_MAX;
		text_add(&packet, "O");
		text_hex(&packet, out.bytes + done, piece);
		gdb_send(c->gdb, &packet);
		text_free(&packet);
	}
	text_free(&out);
	free(line);
	ok(c);
}

static void just_ok(struct command *c)
{
	ok(c);
}

/* ---- the table ---- */

/* How a name ends: at once, before what it is told, or before something else than a word. */
enum name_end { ANYTHING, NOTHING, SEPARATED };

static const struct {
	const char *name;
	enum name_end end;
	void (*run)(struct command *c);
} commands[] = {
    {"qRcmd,", ANYTHING, monitor},
    {"qXfer:features:read:", ANYTHING, features},
    {"qSupported", SEPARATED, supported},
    {"qfThreadInfo", NOTHING, first_threads},
    {"qsThreadInfo", NOTHING, more_threads},
    {"qThreadExtraInfo,", ANYTHING, describe_thread},
    {"qC", NOTHING, current_thread},
    {"qAttached", SEPARATED, is_attached},
    {"qSymbol::", NOTHING, just_ok}, /* no symbols are wanted */
    {"qqemu.PhyMemMode", NOTHING, get_physical},
    {"Qqemu.PhyMemMode:", ANYTHING, set_physical},
    {"QStartNoAckMode", NOTHING, no_ack},
    {"vCont?", NOTHING, go_actions},
    {"vCont", SEPARATED, go_threads},
    {"vKill", SEPARATED, kill_process},
    {"?", NOTHING, why_stopped},
    {"g", NOTHING, read_registers},
    {"G", ANYTHING, write_registers},
    {"p", ANYTHING, read_register},
    {"P", ANYTHING, write_register},
    {"m", ANYTHING, read_memory},
    {"M", ANYTHING, write_memory},
    {"X", ANYTHING, write_memory_binary},
    {"Z", ANYTHING, insert_breakpoint},
    {"z", ANYTHING, remove_breakpoint},
    {"H", ANYTHING, set_thread},
    {"T", ANYTHING, is_alive},
    {"c", ANYTHING, go_on},
    {"C", ANYTHING, go_on_signal},
    {"s", ANYTHING, step},
    {"S", ANYTHING, step_signal},
    {"D", SEPARATED, detach},
    {"k", NOTHING, kill_machine},
};

static bool name_ends(enum name_end end, char next)
{
	if (end == ANYTHING || !next)
		return true;
	return end == SEPARATED && strchr(":;,", next);
}

void gdb_command(struct gdb *gdb, char *data, u32 length)
{
	struct command c = {.gdb = gdb};

	for (u32 n = 0; n < ARRAY_SIZE(commands); n++) {
		size_t bytes = strlen(commands[n].name);
		if (strncmp(data, commands[n].name, bytes) ||
		    !name_ends(commands[n].end, data[bytes]))
			continue;
		c.data = data + bytes;
		c.length = length - (u32)bytes;
		commands[n].run(&c);
		break;
	}
	/* An empty reply says that a command is not known. */
	if (!c.silent)
		gdb_send(gdb, &c.reply);
	text_free(&c.reply);
}

void gdb_forget_session(struct gdb *gdb)
{
	gdb->no_ack = gdb->detached = false;
	gdb->knows_swbreak = gdb->knows_hwbreak = false;
	gdb->physical = false;
	gdb->report_due = false;
}
