/* Signals: reads, writes and events go on to their own limit; requests end when the handler says so, and leave nothing. */

#include "check.h"

#include <sys/time.h>
#include <signal.h>

static volatile sig_atomic_t rung;

static void ring(int number)
{
        (void) number;
        ++rung;
}

/* SIGALRM again and again, so that one comes when the call waits. */
static void alarms(int flags, long interval)
{
        struct sigaction action = {.sa_handler = ring, .sa_flags = flags};
        struct itimerval timer = {{0, interval}, {0, interval}};
        IS(sigaction(SIGALRM, &action, NULL), 0);
        IS(setitimer(ITIMER_REAL, &timer, NULL), 0);
        rung = 0;
}

static void test_reads_and_events_go_on(int flags)
{
        int ends[2];
        char buffer[4096] = {0};
        const struct timespec limit = {0, 100 * 1000 * 1000};
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        alarms(SA_RESTART, 0);
        make_flow(ends, NULL, NULL);
        alarms(flags, 5000);
        double start = now();
        IS(fccntl(ends[0], FLOWSRCVTIMEO, &limit), 0);
        IS(flow_read(ends[0], buffer, 1), -ETIMEDOUT);
        TRUE(now() - start >= 0.1 && rung > 0);
        IS(fset_add(set, ends[0]), 0);
        start = now();
        rung = 0;
        IS(fevent(set, queue, &limit), -ETIMEDOUT);
        TRUE(now() - start >= 0.1 && rung > 0);
        IS(fccntl(ends[0], FLOWSSNDTIMEO, &limit), 0);
        while (flow_write(ends[0], buffer, sizeof(buffer)) > 0)
                ;
        start = now();
        rung = 0;
        IS(flow_write(ends[0], buffer, sizeof(buffer)), -ETIMEDOUT);
        TRUE(now() - start >= 0.1 && rung > 0);
        alarms(flags, 0);
        fset_destroy(set);
        fqueue_destroy(queue);
        end_flow(ends);
}

static void test_requests_end(void)
{
        alarms(0, 20000);
        IS(flow_accept(NULL, NULL), -EINTR);
        TRUE(rung > 0);
        IS(flow_alloc(NAME, NULL, NULL), -EINTR);
        alarms(0, 0);
        /* They are withdrawn: nobody is given a flow that nobody waits for. */
        IS(flow_alloc(NAME, NULL, &at_once), -ETIMEDOUT);
        IS(flow_accept(NULL, &at_once), -ETIMEDOUT);
}

static void test_requests_go_on(void)
{
        const struct timespec limit = {0, 100 * 1000 * 1000};
        alarms(SA_RESTART, 5000);
        double start = now();
        IS(flow_accept(NULL, &limit), -ETIMEDOUT);
        TRUE(now() - start >= 0.1 && rung > 0);
        alarms(SA_RESTART, 0);
}

int main(void)
{
        test_reads_and_events_go_on(0);
        test_reads_and_events_go_on(SA_RESTART);
        test_requests_end();
        test_requests_go_on();
        return done();
}
