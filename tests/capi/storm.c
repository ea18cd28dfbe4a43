/* Threads that call everything at random, on the same few flows, sets and queues: every result is one that the headers name. */

#define _GNU_SOURCE

#include "check.h"

enum { THREADS = 4, CALLS = 3000, PLACES = 4 };

static int fds[PLACES];
static fset_t * sets[PLACES];
static fqueue_t * queues[PLACES];
static const struct timespec moment = {0, 1000};

/* Racy on purpose: what one thread uses another one may just have given back. */
#define AT(array, random) __atomic_load_n(&(array)[(random) % PLACES], __ATOMIC_RELAXED)
#define PUT(array, random, value) __atomic_exchange_n(&(array)[(random) % PLACES], value, __ATOMIC_RELAXED)

enum { AGAIN = 1, TIMEDOUT = 2, INVAL = 4, PERM = 8, BADF = 16, NOTALLOC = 32, DOWN = 64 };

/* The mask has a bit for each of these that may come of the call. */
static void result_is(ssize_t result, int mask, const char * call)
{
        static const int errors[] = {EAGAIN, ETIMEDOUT, EINVAL, EPERM, EBADF, ENOTALLOC, EFLOWDOWN};
        if (result >= 0)
                return;
        for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); ++i)
                if (result == -errors[i] && (mask & (1 << i)))
                        return;
        fprintf(stderr, "%s: %zd\n", call, result);
        exit(1);
}

/* A child has none of the locks that threads of its parent hold just now. */
static void fork_a_child(int fd)
{
        char byte;
        int status;
        pid_t child = fork();
        TRUE(child >= 0);
        if (child > 0) {
                IS(waitpid(child, &status, 0), child);
                IS(status, 0);
                return;
        }
        result_is(flow_read(fd, &byte, 1), BADF | NOTALLOC, "read of a child");
        fset_destroy(fset_create());
        fd = flow_alloc(NAME, NULL, &moment);
        result_is(fd, TIMEDOUT, "alloc of a child");
        if (fd >= 0)
                IS(flow_dealloc(fd), 0);
        _exit(0);
}

static void call_something(unsigned random, char * buffer)
{
        unsigned where = random >> 8;
        size_t length = random >> 12 & 2047;
        int fd = AT(fds, where);
        uint32_t flags = random >> 20 & 1 ? FLOWFDEFAULT | FLOWFNONBLOCK : FLOWFDEFAULT;
        switch (random & 15) {
        case 0:
                fd = flow_accept(NULL, &moment);
                result_is(fd, TIMEDOUT, "accept");
                if (fd >= 0)
                        flow_dealloc(PUT(fds, where, fd));
                break;
        case 1:
                fd = flow_alloc(NAME, NULL, &soon);
                result_is(fd, TIMEDOUT, "alloc");
                if (fd >= 0)
                        flow_dealloc(PUT(fds, where, fd));
                break;
        case 2:
                result_is(flow_dealloc(fd), INVAL | NOTALLOC, "dealloc");
                break;
        case 3:
                fset_destroy(PUT(sets, where, fset_create()));
                break;
        case 4:
                fqueue_destroy(PUT(queues, where, fqueue_create()));
                break;
        case 5:
                result_is(fset_add(AT(sets, where >> 2), fd), INVAL | PERM, "add");
                break;
        case 6:
                fset_del(AT(sets, where >> 2), fd);
                break;
        case 7:
                fset_has(AT(sets, where >> 2), fd);
                if (random >> 28 == 0)
                        fset_zero(AT(sets, where));
                if (random >> 28 == 1)
                        fork_a_child(fd);
                break;
        case 8:
                result_is(fevent(AT(sets, where), AT(queues, where >> 2), &moment), TIMEDOUT | INVAL, "event");
                break;
        case 9:
                result_is(fqueue_next(AT(queues, where)), PERM | INVAL, "next");
                result_is((int) fqueue_type(AT(queues, where)), PERM | INVAL, "type");
                break;
        case 10:
                result_is(fccntl(fd, FLOWSFLAGS, flags), BADF | NOTALLOC, "flags");
                result_is(fccntl(fd, FLOWSRCVTIMEO, &moment), BADF | NOTALLOC, "limit");
                result_is(fccntl(fd, FLOWSSNDTIMEO, &moment), BADF | NOTALLOC, "limit");
                break;
        case 11:
        case 12:
        case 13:
                if (fccntl(fd, FLOWSSNDTIMEO, &moment) == 0)
                        result_is(flow_write(fd, buffer, length), AGAIN | TIMEDOUT | NOTALLOC | DOWN, "write");
                break;
        default:
                if (fccntl(fd, FLOWSRCVTIMEO, &moment) == 0)
                        result_is(flow_read(fd, buffer, length), AGAIN | TIMEDOUT | NOTALLOC | DOWN, "read");
        }
}

static void * storm(void * seed)
{
        char buffer[2048] = {0};
        uint64_t state = *(uint64_t *) seed;
        for (int i = 0; i < CALLS; ++i) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                call_something((unsigned) (state >> 32), buffer);
        }
        return NULL;
}

static void give_everything_back(void)
{
        for (int fd = 64; fd < 64 + THREADS * PLACES; ++fd)
                flow_dealloc(fd);
}

int main(void)
{
        pthread_t threads[THREADS];
        uint64_t seeds[THREADS];
        int ends[2];
        for (int i = 0; i < PLACES; ++i) {
                fds[i] = -1;
                sets[i] = fset_create();
                queues[i] = fqueue_create();
        }
        IS(irm_bind_process(getpid(), NAME), 0);
        for (int i = 0; i < THREADS; ++i) {
                seeds[i] = i + 1;
                IS(pthread_create(&threads[i], NULL, storm, &seeds[i]), 0);
        }
        for (int i = 0; i < THREADS; ++i) {
                struct timespec limit;
                clock_gettime(CLOCK_REALTIME, &limit);
                ++limit.tv_sec;
                /* One may wait for ever on a flow that got its number between two calls. */
                while (pthread_timedjoin_np(threads[i], NULL, &limit) == ETIMEDOUT)
                        give_everything_back();
        }
        for (int i = 0; i < PLACES; ++i) {
                fset_destroy(sets[i]);
                fqueue_destroy(queues[i]);
        }
        give_everything_back();
        make_flow(ends, NULL, NULL);
        IS(ends[0] + ends[1], 64 + 65);
        end_flow(ends);
        return done();
}
