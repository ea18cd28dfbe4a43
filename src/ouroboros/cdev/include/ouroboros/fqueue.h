/* Waiting for many flows. Part of PyOuroboros, LGPL-2.1-or-later. */

#ifndef OUROBOROS_FQUEUE_H
#define OUROBOROS_FQUEUE_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include <ouroboros/cdefs.h>

/* What happened to a flow. */
enum fqtype {
        FLOW_PKT = 1,      /* A packet can be read: one event for each. */
        FLOW_DOWN = 2,     /* It was set down. */
        FLOW_UP = 4,       /* ... and up again. */
        FLOW_ALLOC = 8,    /* Not used. */
        FLOW_DEALLOC = 16, /* The peer gave it back. */
        FLOW_PEER = 32     /* The peer died or does not answer. */
};

typedef struct flow_set fset_t;
typedef struct fqueue fqueue_t;

__BEGIN_DECLS

struct timespec;

/* NULL when this process has no descriptors left. */
fset_t * fset_create(void);

void fset_destroy(fset_t * set);

fqueue_t * fqueue_create(void);

void fqueue_destroy(struct fqueue * fq);

/* Takes all flows out. */
void fset_zero(fset_t * set);

/* -EPERM when the flow is in a set already: it can be in one. It leaves it when it is given back. */
int fset_add(fset_t * set, int fd);

bool fset_has(const fset_t * set, int fd);

void fset_del(fset_t * set, int fd);

/* The flow of the next event, -EPERM when there is none left. */
int fqueue_next(fqueue_t * fq);

/* What that event was. */
enum fqtype fqueue_type(fqueue_t * fq);

/*
 * Waits until something happened to a flow of the set, puts the events into the queue and returns 1. Returns at once when
 * the queue has events left, or a flow has packets that were not read. -ETIMEDOUT when timeo is over; NULL: no limit.
 */
ssize_t fevent(fset_t * set, fqueue_t * fq, const struct timespec * timeo);

__END_DECLS

#endif
