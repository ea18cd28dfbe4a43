/*
 * Flows. All functions can be called from any thread, and return a negative error number when they fail (ouroboros/errno.h).
 * Part of PyOuroboros, LGPL-2.1-or-later.
 */

#ifndef OUROBOROS_DEV_H
#define OUROBOROS_DEV_H

#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <ouroboros/cdefs.h>
#include <ouroboros/qos.h>

__BEGIN_DECLS

struct timespec;

/*
 * Each of these returns the descriptor of a new flow, 64 or more. It is no descriptor of the system.
 *
 * flow_alloc() asks for a flow to a name, flow_accept() waits for one to a name that this program is bound to, flow_join()
 * joins a broadcast layer. qs, which can be NULL: what is asked for, and on return what the flow has. timeo: how long to wait;
 * NULL: 20 s, and without limit in flow_accept().
 *
 * They are the only functions that a signal ends: -EINTR, when its handler was set without SA_RESTART. The request is
 * withdrawn then.
 */
int flow_alloc(const char * dst_name, qosspec_t * qs, const struct timespec * timeo);

int flow_accept(qosspec_t * qs, const struct timespec * timeo);

int flow_join(const char * bc, const struct timespec * timeo);

/* Gives a flow back. The peer reads what was written before, and is then told. */
int flow_dealloc(int fd);

/* Writes one packet, whole or not at all; returns count. Waits for room. An empty one sends nothing. */
ssize_t flow_write(int fd, const void * buf, size_t count);

/*
 * Reads the next packet, or the first count bytes of it; the rest is for the next call. After a read of exactly what was left
 * the next one returns 0, which marks the end of the packet. Both only without FLOWFRNOPART, with which a packet that does
 * not fit is -EMSGSIZE, and stays.
 */
ssize_t flow_read(int fd, void * buf, size_t count);

__END_DECLS

#endif
