/* What the C programs of the tests have in common: checks that say where they failed, and a flow with both ends in one process. */

#ifndef CHECK_H
#define CHECK_H

#include <ouroboros/dev.h>
#include <ouroboros/errno.h>
#include <ouroboros/fccntl.h>
#include <ouroboros/fqueue.h>
#include <ouroboros/irm.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IS(call, wanted)                                                                                               \
        do {                                                                                                           \
                long long got_ = (long long) (call), wanted_ = (long long) (wanted);                                   \
                if (got_ != wanted_) {                                                                                 \
                        fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #call, got_, wanted_);    \
                        exit(1);                                                                                       \
                }                                                                                                      \
        } while (0)

#define TRUE(condition) IS(!!(condition), 1)

#define NAME "both.ends"

static const struct timespec at_once = {0, 0};
static const struct timespec soon = {0, 20 * 1000 * 1000};
static const struct timespec late = {30, 0};

struct acceptance {
        pthread_t thread;
        int fd;
        qosspec_t qs;
};

static inline void * accept_one(void * argument)
{
        struct acceptance * acceptance = argument;
        acceptance->fd = flow_accept(&acceptance->qs, &late);
        return NULL;
}

/* A flow of this process, which accepts for NAME, to itself: ends[0] allocated it, ends[1] accepted it. */
static inline void make_bound_flow(int ends[2], qosspec_t * qs, qosspec_t * accepted)
{
        struct acceptance acceptance = {.fd = 0};
        IS(pthread_create(&acceptance.thread, NULL, accept_one, &acceptance), 0);
        ends[0] = flow_alloc(NAME, qs, &late);
        IS(pthread_join(acceptance.thread, NULL), 0);
        ends[1] = acceptance.fd;
        TRUE(ends[0] >= 64 && ends[1] >= 64 && ends[0] != ends[1]);
        if (accepted != NULL)
                *accepted = acceptance.qs;
}

static inline void make_flow(int ends[2], qosspec_t * qs, qosspec_t * accepted)
{
        IS(irm_bind_process(getpid(), NAME), 0);
        make_bound_flow(ends, qs, accepted);
}

static inline void end_flow(int ends[2])
{
        IS(flow_dealloc(ends[0]), 0);
        IS(flow_dealloc(ends[1]), 0);
}

static inline double now(void)
{
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double) time.tv_sec + (double) time.tv_nsec * 1e-9;
}

static inline int done(void)
{
        puts("ok");
        return 0;
}

#endif
