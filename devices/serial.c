/*
 * 16550A UART. National Semiconductor PC16550D datasheet (June 1995); section numbers are its own.
 *
 * The line is as fast as the host: a byte is gone when it is written, and the transmitter is busy
 * only while the host takes no more. Departure on purpose: IRQs pass whatever MCR.OUT2 says (on a
 * PC it gates them), as guests that never saw a real PC leave it clear.
 *
 * Bytes wait on the line until somebody listens: until the guest enables the receive interrupt or
 * polls. Drivers empty the receiver when they start; what was typed or piped in before is not lost.
 */
#include "devices/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Register offsets (table 2); DLL and DLM with LCR.DLAB set. */
enum {
	REG_RBR_THR_DLL = 0,
	REG_IER_DLM = 1,
	REG_IIR_FCR = 2,
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

#define IER_RECEIVE  0x01 /* received data available */
#define IER_TRANSMIT 0x02 /* transmitter holding register empty */
#define IER_LINE     0x04 /* receiver line status */
#define IER_MODEM    0x08 /* modem status */
#define IER_BITS     0x0f

/* Interrupt identification, highest priority first (8.5, table 4). */
#define IIR_LINE     0x06
#define IIR_RECEIVE  0x04
#define IIR_TIMEOUT  0x0c
#define IIR_TRANSMIT 0x02
#define IIR_MODEM    0x00
#define IIR_NONE     0x01
#define IIR_FIFO_ON  0xc0

#define FCR_ENABLE	  0x01
#define FCR_CLEAR_RECEIVE 0x02
#define FCR_TRIGGER_SHIFT 6

#define LCR_DLAB 0x80

#define MCR_DTR	 0x01
#define MCR_RTS	 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_BITS 0x1f

#define LSR_DATA_READY	 0x01
#define LSR_OVERRUN	 0x02
#define LSR_ERRORS	 0x1e
#define LSR_HOLDING_FREE 0x20
#define LSR_IDLE	 0x40

#define MSR_CTS_CHANGED	  0x01
#define MSR_DSR_CHANGED	  0x02
#define MSR_RING_ENDED	  0x04
#define MSR_DCD_CHANGED	  0x08
#define MSR_CHANGES	  0x0f
#define MSR_CTS		  0x10
#define MSR_DSR		  0x20
#define MSR_RING	  0x40
#define MSR_DCD		  0x80
#define MSR_LINE_IS_THERE (MSR_CTS | MSR_DSR | MSR_DCD)

#define FIFO_BYTES 16u

/* So many looks at LSR or IIR in a row, with nothing else between, are a guest that polls. */
#define POLLS_TO_LISTEN 4

struct serial {
	struct irq_wire irq;
	struct serial_line line;

	pthread_mutex_t lock; /* guards all below */
	int irq_level;
	u8 ier, fcr, lcr, mcr, lsr, msr, scr;
	u16 divisor;
	bool transmit_irq; /* the holding register ran empty, and IIR has not said so yet */
	bool was_busy;	   /* the holding register was last seen occupied */
	u8 fifo[FIFO_BYTES];
	u32 fifo_head, fifo_count;
	u32 polls;
};

static bool fifo_on(const struct serial *s)
{
	return s->fcr & FCR_ENABLE;
}

/** Bytes the receiver holds: the FIFO, or in 16450 mode the one buffer register. */
static u32 receiver_capacity(const struct serial *s)
{
	return fifo_on(s) ? FIFO_BYTES : 1;
}

/** FIFO level at which received data interrupts (8.4, FCR bits 6 and 7). */
static u32 trigger_level(const struct serial *s)
{
	static const u8 levels[] = {1, 4, 8, 14};
	return fifo_on(s) ? levels[s->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

static void receive(struct serial *s, u8 byte)
{
	if (s->fifo_count < receiver_capacity(s)) {
		s->fifo[(s->fifo_head + s->fifo_count) % FIFO_BYTES] = byte;
		s->fifo_count++;
		return;
	}
	/* 8.3: on overrun the FIFO keeps what it has; the lone buffer register is overwritten. */
	s->lsr |= LSR_OVERRUN;
	if (!fifo_on(s))
		s->fifo[s->fifo_head] = byte;
}

/** Whether the guest pays attention to the line, see the head of this file. */
static bool listening(const struct serial *s)
{
	return (s->ier & IER_RECEIVE) || s->polls >= POLLS_TO_LISTEN;
}

/** Lets bytes that arrived on the line into the receiver, as far as it has room. */
static void pull_line(struct serial *s)
{
	if (!listening(s) || (s->mcr & MCR_LOOP))
		return;
	u8 bytes[FIFO_BYTES];
	u32 count = s->line.take(s->line.opaque, bytes, receiver_capacity(s) - s->fifo_count);
	for (u32 i = 0; i < count; i++)
		receive(s, bytes[i]);
}

static bool holding_free(const struct serial *s)
{
	return (s->mcr & MCR_LOOP) || s->line.has_room(s->line.opaque);
}

/** The pending interrupt of highest priority that IER lets through (8.5). */
static u8 interrupt_id(const struct serial *s)
{
	if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
		return IIR_LINE;
	if ((s->ier & IER_RECEIVE) && s->fifo_count >= trigger_level(s))
		return IIR_RECEIVE;
	/* The line is infinitely fast, so four idle characters have passed when the FIFO rests. */
	if ((s->ier & IER_RECEIVE) && s->fifo_count)
		return IIR_TIMEOUT;
	if ((s->ier & IER_TRANSMIT) && s->transmit_irq)
		return IIR_TRANSMIT;
	if ((s->ier & IER_MODEM) && (s->msr & MSR_CHANGES))
		return IIR_MODEM;
	return IIR_NONE;
}

static void update_irq(struct serial *s)
{
	int level = interrupt_id(s) != IIR_NONE;
	if (level != s->irq_level) {
		s->irq_level = level;
		irq_wire_set(&s->irq, level);
	}
}

/** Notices that the transmitter ran empty: that edge is what interrupts. */
static void update_transmitter(struct serial *s)
{
	bool busy = !holding_free(s);
	if (s->was_busy && !busy)
		s->transmit_irq = true;
	s->was_busy = busy;
}

/** Modem inputs as MSR shows them; in loopback they are wired to the outputs (8.6, bit 4). */
static u8 modem_inputs(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_LINE_IS_THERE;
	return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (s->mcr & MCR_OUT1 ? MSR_RING : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct serial *s)
{
	u8 now = modem_inputs(s);
	u8 changed = (now ^ s->msr) & ~MSR_CHANGES;
	u8 deltas = (changed & MSR_CTS ? MSR_CTS_CHANGED : 0) |
		    (changed & MSR_DSR ? MSR_DSR_CHANGED : 0) |
		    (changed & MSR_DCD ? MSR_DCD_CHANGED : 0);
	if ((changed & MSR_RING) && !(now & MSR_RING)) /* 8.8: TERI is the trailing edge only */
		deltas |= MSR_RING_ENDED;
	s->msr = now | (s->msr & MSR_CHANGES) | deltas;
}

static u8 read_rbr(struct serial *s)
{
	u8 byte = s->fifo[s->fifo_head];
	if (s->fifo_count) {
		s->fifo_count--;
		s->fifo_head = (s->fifo_head + 1) % FIFO_BYTES;
	}
	if (!fifo_on(s))
		s->fifo_head = 0;
	pull_line(s);
	return byte;
}

static u8 read_iir(struct serial *s)
{
	u8 id = interrupt_id(s);
	if (id ==
	    IIR_TRANSMIT) /* table 4: reading IIR resets this source, and only if it is shown */
		s->transmit_irq = false;
	return id | (fifo_on(s) ? IIR_FIFO_ON : 0);
}

static u8 read_lsr(struct serial *s)
{
	u8 value = s->lsr | (s->fifo_count ? LSR_DATA_READY : 0) |
		   (holding_free(s) ? LSR_HOLDING_FREE | LSR_IDLE : 0);
	s->lsr &= ~LSR_ERRORS;
	return value;
}

static u8 read_register(struct serial *s, u32 reg)
{
	bool dlab = s->lcr & LCR_DLAB;
	switch (reg) {
	case REG_RBR_THR_DLL:
		return dlab ? (u8)s->divisor : read_rbr(s);
	case REG_IER_DLM:
		return dlab ? (u8)(s->divisor >> 8) : s->ier;
	case REG_IIR_FCR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return read_lsr(s);
	case REG_MSR: {
		u8 value = s->msr;
		s->msr &= ~MSR_CHANGES;
		return value;
	}
	default:
		return s->scr;
	}
}

static u64 serial_read(void *opaque, u64 offset, u32 size)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	if (offset == REG_LSR || offset == REG_IIR_FCR)
		s->polls++;
	else
		s->polls = 0;
	pull_line(s);
	update_transmitter(s);
	u8 value = read_register(s, (u32)offset);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void write_ier(struct serial *s, u8 value)
{
	/* Enabling the interrupt while the register is empty raises it; Linux tests for this. */
	if (!(s->ier & IER_TRANSMIT) && (value & IER_TRANSMIT) && holding_free(s))
		s->transmit_irq = true;
	s->ier = value & IER_BITS;
}

static void write_fcr(struct serial *s, u8 value)
{
	/* 8.4: a change of bit 0 clears the FIFOs; other bits count only if bit 0 is set. */
	bool toggled = (value ^ s->fcr) & FCR_ENABLE;
	if (toggled || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RECEIVE))) {
		s->fifo_count = 0;
		s->fifo_head = 0;
	}
	s->fcr = value & FCR_ENABLE ? value : 0;
}

/** A write to THR. Returns whether the byte goes out on the line. */
static bool write_thr(struct serial *s, u8 value)
{
	bool loop = s->mcr & MCR_LOOP;
	if (loop)
		receive(s, value);
	s->transmit_irq = true; /* gone at once; update_transmitter() takes it back if not */
	return !loop;
}

/** Returns whether @value is to be sent on the line. */
static bool write_register(struct serial *s, u32 reg, u8 value)
{
	bool dlab = s->lcr & LCR_DLAB;
	switch (reg) {
	case REG_RBR_THR_DLL:
		if (!dlab)
			return write_thr(s, value);
		s->divisor = (s->divisor & 0xff00) | value;
		break;
	case REG_IER_DLM:
		if (dlab)
			s->divisor = (u16)((s->divisor & 0x00ff) | value << 8);
		else
			write_ier(s, value);
		break;
	case REG_IIR_FCR:
		write_fcr(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		s->mcr = value & MCR_BITS;
		update_modem(s);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	default: /* LSR is for factory testing, MSR read-only */
		break;
	}
	return false;
}

static void serial_write(void *opaque, u64 offset, u64 value, u32 size)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	s->polls = 0;
	bool send = write_register(s, (u32)offset, (u8)value);
	if (send) {
		/* put() may wait for the reader, and the loop needs the lock meanwhile. */
		pthread_mutex_unlock(&s->lock);
		s->line.put(s->line.opaque, (u8)value);
		pthread_mutex_lock(&s->lock);
		if (!holding_free(s)) {
			s->transmit_irq = false;
			s->was_busy = true;
		}
	}
	pull_line(s);
	update_transmitter(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

/** Master reset (table 1), and LCR as a PC's firmware leaves it: 8 bits, 9600 baud. */
static void reset(struct serial *s)
{
	s->lcr = 0x03;
	s->divisor = 12;
	s->msr = modem_inputs(s);
}

void serial_line_changed(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	pull_line(s);
	update_transmitter(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct bus_ops serial_ops = {
    .name = "serial",
    .sizes = BUS_SIZE_1,
    .read = serial_read,
    .write = serial_write,
};

int serial_create(struct serial **out, struct bus *io, u16 port, struct irq_wire irq,
		  struct serial_line line, struct error *err)
{
	struct serial *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, ENOMEM, "no memory for the serial port");
	s->irq = irq;
	s->line = line;
	reset(s);
	int ret = bus_add(io, port, SERIAL_PORTS, &serial_ops, s, err);
	if (ret < 0) {
		free(s);
		return ret;
	}
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

void serial_destroy(struct serial *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s);
}
