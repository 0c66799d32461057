/*
 * Ports and MMIO that the monitor answers. Inside.
 *
 * A read leaves the guest at once, in the middle of the instruction: the run loop returns
 * KVM_EXIT_IO or KVM_EXIT_MMIO to the monitor, logs the answer in v->io_log and executes the
 * instruction again from its start (alone, no interrupt before it); reads already logged are then
 * answered from the log. So an instruction must not change state before its last read.
 *
 * A write is queued in v->io_queue; ATTENTION_QUEUE makes the vCPU leave at the end of the current
 * instruction (of the current iteration, for REP: string ops look at v->attention after each one),
 * and the run loop hands the queue to the monitor, one exit each.
 */
#ifndef GUISE_SOFT_IO_H
#define GUISE_SOFT_IO_H

#include "engine/soft/vcpu.h"

/** MMIO of @size bytes (any; cut into naturally aligned pieces of at most 8) at @gpa. */
void mmio_read(struct soft_vcpu *v, u64 gpa, void *buf, u32 size);
void mmio_write(struct soft_vcpu *v, u64 gpa, const void *buf, u32 size);

/** Port access of 1, 2 or 4 bytes; ports of the interrupt chips are answered in the engine. */
u32 port_read(struct soft_vcpu *v, u16 port, u32 size);
void port_write(struct soft_vcpu *v, u16 port, u32 size, u32 value);
/** port_write() as the last act of an instruction that goes on at v->next_rip. Where nothing else
 * is due behind it, it leaves for the monitor by itself and does not return. */
void port_write_last(struct soft_vcpu *v, u16 port, u32 size, u32 value);

/** Fills base.run for the next queued write and takes it off the queue. false: queue empty. */
bool io_queue_next(struct soft_vcpu *v);
/** Takes the monitor's answer to the read in base.run into the log. */
void io_complete_read(struct soft_vcpu *v);

#endif
