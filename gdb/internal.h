/* The stub's inside, shared by the files of gdb/ only. All on the loop's thread unless stated. */
#ifndef GUISE_GDB_INTERNAL_H
#define GUISE_GDB_INTERNAL_H

#include <pthread.h>

#include "gdb/gdb.h"
#include "gdb/packet.h"

/* What the machine does, as the debugger sees it. */
enum gdb_state {
	GDB_NO_MACHINE,
	GDB_STOPPED,  /* all vCPUs rest: everything may be looked at and changed */
	GDB_RUNNING,  /* some run */
	GDB_STOPPING, /* all have been asked to rest */
};

/* gdb's numbers for signals (include/gdb/signals.def), which are not Linux' everywhere. */
enum {
	GDB_SIGNAL_INT = 2,
	GDB_SIGNAL_TRAP = 5,
	GDB_SIGNAL_ABRT = 6,
};

/* Why a vCPU has stopped. */
enum stop_kind {
	STOP_NONE,
	STOP_INTERRUPT, /* ^C, a connection, a reset */
	STOP_STEP,
	STOP_SOFTWARE, /* INT3 of ours */
	STOP_HARDWARE,
	STOP_WATCH,
	STOP_FAILED, /* the guest is dead */
};

struct stop {
	enum stop_kind kind;
	u32 hit; /* STOP_WATCH: slot in gdb.hardware[] */
};

enum cpu_action { CPU_HOLD, CPU_RUN, CPU_STEP };

#define SOFTWARE_MAX	1024
#define SOFTWARE_PLACES 256
#define HARDWARE_MAX	4 /* debug registers */

/* INT3 in guest memory. It stays where it was put, whatever the page tables say later. */
struct software_breakpoint {
	u64 address; /* linear, as gdb asked for it; in physical mode the gpa */
	u64 gpa;
	u8 original;
};

/* Where a software breakpoint was last, found by its address. */
struct software_place {
	bool known;
	u64 address, gpa;
};

/* What one debug register watches, of one request of gdb's, which may take several. */
struct hardware_breakpoint {
	u64 address, length; /* as gdb asked; length 0: not in use */
	u64 watched;	     /* what this register watches, a power of two bytes */
	u32 bytes;
	char type; /* gdb's: '1' execution, '2' write, '4' access */
};

struct gdb {
	struct gdb_config config;
	struct loop *loop;
	char address[sizeof(((struct gdb_config *)0)->address) + 32];
	char *unix_path; /* to be removed at the end, or NULL */

	/* server.c */
	int listen_fd, fd, wake_fd; /* fd: the connection, or -1 */
	struct loop_source *listener, *connection, *waker;
	struct packet_input in;
	struct text out;  /* on its way to gdb */
	struct text last; /* the last packet, should it have to be sent again */
	bool no_ack;
	bool detached; /* the debugger has let the machine go and is about to hang up */
	bool leaving;  /* a connection is gone: its breakpoints go once the machine has stopped,
			* which then runs on unless another one has come */

	/* run.c */
	struct gdb_machine machine;
	enum gdb_state state;
	bool report_due; /* gdb waits for a stop reply */
	bool dead;	 /* the machine has failed: nothing is going to run again */
	bool looking;	 /* and the debugger looks at it */
	bool knows_swbreak, knows_hwbreak;
	struct stop stop; /* the last one reported, by */
	u32 stopped_cpu;
	u32 cpu; /* the one whose registers and memory are asked for (Hg) */
	u32 step_flags;
	struct {
		enum cpu_action action;
		u32 control; /* what the engine was told last */
		struct stop stop;
	} cpus[GDB_CPUS_MAX];
	pthread_mutex_t lock; /* guards cpus[].stop: vCPU threads write it */

	/* breakpoints.c; changed only while the machine rests, so vCPU threads may look */
	struct software_breakpoint software[SOFTWARE_MAX];
	struct software_place places[SOFTWARE_PLACES];
	u32 software_count;
	struct hardware_breakpoint hardware[HARDWARE_MAX];

	bool physical; /* addresses of memory are guest-physical (Qqemu.PhyMemMode) */
	enum gdb_arch arch;
	struct register_set *registers; /* registers.c: what this machine's vCPUs have */
	struct text description;	/* description.c */
};

static inline struct engine_vcpu *gdb_cpu(const struct gdb *gdb)
{
	return gdb->machine.cpus[gdb->cpu];
}

/* ---- server.c ---- */

/** Sends @reply as a packet. */
void gdb_send(struct gdb *gdb, const struct text *reply);
bool gdb_is_connected(const struct gdb *gdb);
/** Whether somebody wants to hear of the machine. */
bool gdb_is_debugged(const struct gdb *gdb);
/** Goes on with commands that have waited for the machine to stop. */
void gdb_take_commands(struct gdb *gdb);

/* ---- listen.c ---- */

/** Opens gdb->listen_fd by gdb->config. 0 or a negative errno with @err. */
int gdb_listen(struct gdb *gdb, struct error *err);

/* ---- commands.c ---- */

/** Carries out one packet and sends its reply, if it has one now. The machine rests. */
void gdb_command(struct gdb *gdb, char *data, u32 length);
/** The connection is new: forgets what the last one had agreed on. */
void gdb_forget_session(struct gdb *gdb);

/* ---- run.c ---- */

/** Asks the machine to stop. */
void gdb_interrupt(struct gdb *gdb);
/** Lets go what gdb->cpus[].action says. 0; a negative errno: the engine cannot watch it so, and
 * all rest. */
int gdb_resume(struct gdb *gdb);
/** A debugger has gone, and the machine rests: takes away its breakpoints and why it stopped. */
void gdb_forget_requests(struct gdb *gdb);
/** The same, and lets everything go. */
void gdb_release(struct gdb *gdb);
/** Something may have come to rest. */
void gdb_look(struct gdb *gdb);
/** Appends the stop reply (gdb's manual, E.3). */
void gdb_stop_reply(struct gdb *gdb, struct text *reply);

/* ---- breakpoints.c ---- */

/** Z and z packets. 0; -ENOTSUP: no such type; another negative errno: not possible. */
int breakpoint_insert(struct gdb *gdb, char type, u64 address, u64 length);
int breakpoint_remove(struct gdb *gdb, char type, u64 address, u64 length);
void breakpoints_remove_all(struct gdb *gdb);
/** Forgets all without touching the guest: its memory is another one now. */
void breakpoints_forget(struct gdb *gdb);
/** Whether INT3 at linear @pc of @cpu is one of ours. Any thread while vCPUs run. */
bool breakpoint_is_ours(struct gdb *gdb, u32 cpu, u64 pc);
/** Memory at @gpa has been read: puts what was there before INT3 into @bytes. */
void breakpoints_hide(const struct gdb *gdb, u64 gpa, u8 *bytes, u64 length);
/** Memory at @gpa has been written at the host's @bytes: puts INT3 back. */
void breakpoints_keep(struct gdb *gdb, u64 gpa, u8 *bytes, u64 length);
/** What vCPUs are to be told: debug registers, and the flags for it. */
u32 breakpoints_debug(const struct gdb *gdb, struct kvm_guest_debug *debug);

/* ---- memory.c ---- */

/** Reads or writes guest memory as vCPU gdb->cpu sees it, or physical memory. Returns how many
 * bytes could be read before something was missing; writes are all or nothing (-EFAULT). */
u64 memory_read(struct gdb *gdb, bool physical, u64 address, void *to, u64 length);
int memory_write(struct gdb *gdb, bool physical, u64 address, const void *from, u64 length);
/** The gpa of @address, if it is RAM. On @cpu's thread too while vCPUs run. */
bool memory_find(struct gdb *gdb, u32 cpu, bool physical, u64 address, u64 *gpa);

/* ---- registers.c ---- */

/** Finds out what the machine's vCPUs have. 0 or a negative errno. */
int registers_create(struct gdb *gdb);
void registers_destroy(struct gdb *gdb);
/** g, G, p and P. Negative errno: the vCPU does not give or take it. */
int registers_read_all(struct gdb *gdb, struct text *reply);
int registers_write_all(struct gdb *gdb, const char *hex, size_t digits);
int register_read(struct gdb *gdb, u64 number, struct text *reply);
int register_write(struct gdb *gdb, u64 number, const char *hex, size_t digits);

/* ---- monitor.c ---- */

/** Carries out "monitor @line"; its output goes to @out. */
void monitor_command(struct gdb *gdb, char *line, struct text *out);

#endif
