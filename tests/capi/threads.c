/* Threads: one flow in many, waking up, and cancellation in every call that waits. */

#define _GNU_SOURCE

#include "check.h"

#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>

static int ends[2];

/* --- one flow in many threads */

enum { WRITERS = 4, PACKETS = 5000 };

static void * write_many(void * argument)
{
        for (int i = 0; i < PACKETS; ++i)
                IS(flow_write(ends[0], argument, sizeof(int)), sizeof(int));
        return NULL;
}

static void * echo(void * nothing)
{
        int number;
        ssize_t length;
        while ((length = flow_read(ends[1], &number, sizeof(number))) >= 0)
                if (length > 0)
                        IS(flow_write(ends[1], &number, sizeof(number)), sizeof(number));
        IS(length, -EFLOWDOWN);
        return nothing;
}

static void test_a_flow_is_shared_by_threads(void)
{
        pthread_t writers[WRITERS], echoes[2];
        int numbers[WRITERS], count[WRITERS] = {0}, number;
        make_flow(ends, NULL, NULL);
        for (int i = 0; i < 2; ++i)
                IS(pthread_create(&echoes[i], NULL, echo, NULL), 0);
        for (int i = 0; i < WRITERS; ++i) {
                numbers[i] = i;
                IS(pthread_create(&writers[i], NULL, write_many, &numbers[i]), 0);
        }
        for (int i = 0; i < WRITERS * PACKETS; ++i) {
                IS(flow_read(ends[0], &number, sizeof(number)), sizeof(number));
                IS(flow_read(ends[0], &number, sizeof(number)), 0);
                ++count[number];
        }
        for (int i = 0; i < WRITERS; ++i) {
                IS(count[i], PACKETS);
                IS(pthread_join(writers[i], NULL), 0);
        }
        IS(flow_dealloc(ends[0]), 0);
        for (int i = 0; i < 2; ++i)
                IS(pthread_join(echoes[i], NULL), 0);
        IS(flow_dealloc(ends[1]), 0);
}

/* --- waking up */

static sem_t started;

static void * read_to_the_end(void * fd)
{
        char byte;
        sem_post(&started);
        return (void *) flow_read(*(int *) fd, &byte, 1);
}

static void * write_to_the_end(void * fd)
{
        static char packet[4096];
        ssize_t result;
        sem_post(&started);
        while ((result = flow_write(*(int *) fd, packet, sizeof(packet))) > 0)
                ;
        return (void *) result;
}

static ssize_t result_of(void * (*call)(void *), int * fd, int deallocated)
{
        pthread_t thread;
        void * result;
        IS(pthread_create(&thread, NULL, call, fd), 0);
        sem_wait(&started);
        IS(flow_dealloc(deallocated), 0);
        IS(pthread_join(thread, &result), 0);
        return (ssize_t) result;
}

static void test_who_waits_is_told_of_the_end(void)
{
        make_flow(ends, NULL, NULL);
        IS(result_of(read_to_the_end, &ends[0], ends[1]), -EFLOWDOWN);
        IS(flow_dealloc(ends[0]), 0);
        make_flow(ends, NULL, NULL);
        IS(result_of(read_to_the_end, &ends[0], ends[0]), -ENOTALLOC);
        IS(flow_dealloc(ends[1]), 0);
        make_flow(ends, NULL, NULL);
        IS(result_of(write_to_the_end, &ends[0], ends[1]), -EFLOWDOWN);
        IS(flow_dealloc(ends[0]), 0);
        make_flow(ends, NULL, NULL);
        IS(result_of(write_to_the_end, &ends[0], ends[0]), -ENOTALLOC);
        IS(flow_dealloc(ends[1]), 0);
}

/* --- a descriptor that is used again */

static sem_t held, let_go;
static volatile pid_t waiting;

/* Keeps the thread from looking, while the test goes on. */
static void hold(int number)
{
        (void) number;
        sem_post(&held);
        while (sem_wait(&let_go) < 0)
                ;
}

static void * wait_on_flow(void * write)
{
        static char packet[4096];
        ssize_t result;
        waiting = gettid();
        if (write == NULL)
                return (void *) flow_read(ends[0], packet, sizeof(packet));
        while ((result = flow_write(ends[0], packet, sizeof(packet))) > 0)
                ;
        return (void *) result;
}

static bool sleeps_in(long call)
{
        char path[64];
        long number = -1;
        snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", waiting);
        FILE * file = fopen(path, "r");
        if (file == NULL)
                return false;
        if (fscanf(file, "%ld", &number) != 1)
                number = -1;
        fclose(file);
        return number == call;
}

static void test_a_call_stays_with_its_flow(bool write)
{
        struct sigaction action = {.sa_handler = hold};
        pthread_t thread;
        void * result;
        char byte;
        int old[2];
        IS(sigaction(SIGUSR1, &action, NULL), 0);
        make_flow(ends, NULL, NULL);
        memcpy(old, ends, sizeof(old));
        waiting = 0;
        IS(pthread_create(&thread, NULL, wait_on_flow, write ? &byte : NULL), 0);
        while (!sleeps_in(write ? SYS_futex : SYS_ppoll))
                sched_yield();
        IS(pthread_kill(thread, SIGUSR1), 0);
        sem_wait(&held);
        end_flow(ends);
        make_flow(ends, NULL, NULL);
        TRUE((ends[0] == old[0] && ends[1] == old[1]) || (ends[0] == old[1] && ends[1] == old[0]));
        IS(flow_write(ends[0], "new", 3), 3);
        IS(flow_write(ends[1], "new", 3), 3);
        sem_post(&let_go);
        IS(pthread_join(thread, &result), 0);
        IS((ssize_t) result, -ENOTALLOC);
        /* Nothing of the other flow was taken, and nothing put into it. */
        for (int i = 0; i < 2; ++i) {
                IS(fccntl(ends[i], FLOWSFLAGS, (uint32_t) (FLOWFDEFAULT | FLOWFRNOBLOCK)), 0);
                IS(flow_read(ends[i], &byte, 1), 1);
                IS(byte, 'n');
                IS(flow_read(ends[i], &byte, 1), 1);
                IS(flow_read(ends[i], &byte, 1), 1);
                IS(flow_read(ends[i], &byte, 1), 0);
                IS(flow_read(ends[i], &byte, 1), -EAGAIN);
        }
        end_flow(ends);
}

/* --- cancellation */

static fset_t * set;
static fqueue_t * queue;
static int cleaned;

static void clean(void * nothing)
{
        (void) nothing;
        ++cleaned;
}

static void * wait_cancelled(void * argument)
{
        static char packet[4096];
        pthread_cleanup_push(clean, NULL);
        sem_post(&started);
        switch (*(char *) argument) {
        case 'a':
                flow_accept(NULL, NULL);
                break;
        case 'c':
                flow_alloc("accepted by nobody", NULL, &late);
                break;
        case 'r':
                flow_read(ends[0], packet, 1);
                break;
        case 'w':
                while (flow_write(ends[0], packet, sizeof(packet)) > 0)
                        ;
                break;
        default:
                fevent(set, queue, NULL);
        }
        fprintf(stderr, "it was not cancelled in %s\n", (char *) argument);
        exit(1);
        pthread_cleanup_pop(0);
        return NULL;
}

static void test_threads_can_be_cancelled(void)
{
        const char * calls[] = {"accept", "call", "read", "write", "event"};
        struct name_info info = {.name = "accepted by nobody", .pol_lb = LB_RR};
        IS(irm_create_name(&info), 0);
        set = fset_create();
        queue = fqueue_create();
        make_flow(ends, NULL, NULL);
        IS(fset_add(set, ends[1]), 0);
        for (int round = 0; round < 20; ++round)
                for (int i = 0; i < 5; ++i) {
                        pthread_t thread;
                        void * result;
                        cleaned = 0;
                        /* A writer looks once a second only. */
                        if (i == 3 && round % 10 != 0)
                                continue;
                        if (i == 4) {
                                fset_destroy(set);
                                set = fset_create();
                        }
                        IS(pthread_create(&thread, NULL, wait_cancelled, (void *) calls[i]), 0);
                        sem_wait(&started);
                        /* Now and then it is asleep already, and now and then not yet. */
                        for (int turn = 0; turn < round * round; ++turn)
                                sched_yield();
                        IS(pthread_cancel(thread), 0);
                        IS(pthread_join(thread, &result), 0);
                        TRUE(result == PTHREAD_CANCELED);
                        IS(cleaned, 1);
                }
        /* Nothing is held by the dead: the flow still works, and what they asked for is forgotten. */
        IS(fccntl(ends[0], FLOWSRCVTIMEO, &at_once), 0);
        char byte;
        IS(flow_read(ends[0], &byte, 1), -ETIMEDOUT);
        end_flow(ends);
        IS(flow_alloc(NAME, NULL, &at_once), -ETIMEDOUT);
        make_flow(ends, NULL, NULL);
        end_flow(ends);
        fset_destroy(set);
        fqueue_destroy(queue);
}

int main(void)
{
        sem_init(&started, 0, 0);
        test_a_flow_is_shared_by_threads();
        test_who_waits_is_told_of_the_end();
        sem_init(&held, 0, 0);
        sem_init(&let_go, 0, 0);
        test_a_call_stays_with_its_flow(false);
        test_a_call_stays_with_its_flow(true);
        test_threads_can_be_cancelled();
        return done();
}
