/* fset_*, fqueue_*, fevent: members, events and their order, time limits, stale handles. */

#include "check.h"

static char buffer[64];

static void expect(fqueue_t * queue, int fd, int kind)
{
        IS(fqueue_next(queue), fd);
        IS(fqueue_type(queue), kind);
}

static void test_members(void)
{
        int ends[2];
        fset_t * set = fset_create(), * other = fset_create();
        make_flow(ends, NULL, NULL);
        TRUE(set != NULL && other != NULL && set != other);
        TRUE(!fset_has(set, ends[0]));
        IS(fset_add(set, ends[0]), 0);
        TRUE(fset_has(set, ends[0]) && !fset_has(set, ends[1]) && !fset_has(other, ends[0]));
        IS(fset_add(set, ends[0]), -EPERM);
        IS(fset_add(other, ends[0]), -EPERM);
        IS(fset_add(set, 4000), -EINVAL);
        IS(fset_add(set, -5), -EINVAL);
        IS(fset_add(NULL, ends[1]), -EINVAL);
        fset_del(other, ends[0]);
        TRUE(fset_has(set, ends[0]));
        fset_del(set, ends[0]);
        fset_del(set, ends[0]);
        IS(fset_add(other, ends[0]), 0);
        fset_zero(other);
        TRUE(!fset_has(other, ends[0]));
        /* A flow that is given back leaves its set. */
        IS(fset_add(set, ends[0]), 0);
        IS(fset_add(set, ends[1]), 0);
        end_flow(ends);
        TRUE(!fset_has(set, ends[0]));
        make_flow(ends, NULL, NULL);
        IS(fset_add(other, ends[0]), 0);
        /* So does one whose set is given back. */
        fset_destroy(other);
        IS(fset_add(set, ends[0]), 0);
        fset_destroy(set);
        end_flow(ends);
}

static void test_handles(void)
{
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        int number = 0;
        TRUE(queue != NULL);
        IS(fqueue_next(queue), -EPERM);
        IS((int) fqueue_type(queue), -EPERM);
        IS(fqueue_next(NULL), -EINVAL);
        IS((int) fqueue_type(NULL), -EINVAL);
        IS(fevent(NULL, queue, &at_once), -EINVAL);
        IS(fevent(set, NULL, &at_once), -EINVAL);
        IS(fevent((fset_t *) &number, queue, &at_once), -EINVAL);
        IS(fevent(set, queue, &(struct timespec) {0, -1}), -EINVAL);
        fqueue_destroy(queue);
        fqueue_destroy(queue);
        fqueue_destroy(NULL);
        IS(fqueue_next(queue), -EINVAL);
        fset_destroy(set);
        fset_destroy(set);
        fset_destroy(NULL);
        fset_zero(set);
        fset_del(set, 64);
        TRUE(!fset_has(set, 64) && !fset_has(NULL, 64));
        IS(fset_add(set, 64), -EINVAL);
        IS(fevent(set, queue, NULL), -EINVAL);
        /* More than the prototype has. */
        fset_t * sets[40];
        for (int i = 0; i < 40; ++i)
                TRUE((sets[i] = fset_create()) != NULL);
        for (int i = 0; i < 40; ++i)
                fset_destroy(sets[i]);
}

static void test_events(void)
{
        int one[2], two[2];
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        make_flow(one, NULL, NULL);
        make_flow(two, NULL, NULL);
        IS(flow_write(one[0], "early", 5), 5);
        IS(fset_add(set, one[1]), 0);
        IS(fset_add(set, two[1]), 0);
        IS(fevent(set, queue, NULL), 1);
        expect(queue, one[1], FLOW_PKT);
        IS(fqueue_next(queue), -EPERM);
        /* It was not read, so it is told of again. */
        IS(fevent(set, queue, NULL), 1);
        expect(queue, one[1], FLOW_PKT);
        IS(flow_read(one[1], buffer, 64), 5);
        IS(fevent(set, queue, &at_once), -ETIMEDOUT);
        double start = now();
        IS(fevent(set, queue, &soon), -ETIMEDOUT);
        TRUE(now() - start >= 0.02);
        /* One event for each packet. */
        for (int i = 0; i < 3; ++i)
                IS(flow_write(one[0], "packet", 6), 6);
        IS(flow_write(two[0], "other", 5), 5);
        IS(fevent(set, queue, NULL), 1);
        for (int i = 0; i < 3; ++i) {
                /* What is left in the queue comes first. */
                IS(fevent(set, queue, NULL), 1);
                expect(queue, one[1], FLOW_PKT);
                IS(flow_read(one[1], buffer, 64), 6);
        }
        expect(queue, two[1], FLOW_PKT);
        IS(flow_read(two[1], buffer, 64), 5);
        IS(fqueue_next(queue), -EPERM);
        /* Events of packets that were read meanwhile are passed over. */
        IS(flow_write(one[0], "read", 4), 4);
        IS(fevent(set, queue, NULL), 1);
        IS(flow_read(one[1], buffer, 64), 4);
        IS(fqueue_next(queue), -EPERM);
        IS(fevent(set, queue, &at_once), -ETIMEDOUT);
        /* Down, up, and the end behind the last packet. */
        IS(fccntl(one[0], FLOWSFLAGS, (uint32_t) (FLOWFDEFAULT | FLOWFDOWN)), 0);
        IS(fevent(set, queue, NULL), 1);
        expect(queue, one[1], FLOW_DOWN);
        IS(fevent(set, queue, &soon), -ETIMEDOUT);
        IS(fccntl(one[0], FLOWSFLAGS, (uint32_t) FLOWFDEFAULT), 0);
        IS(fevent(set, queue, NULL), 1);
        expect(queue, one[1], FLOW_UP);
        IS(flow_write(one[0], "last", 4), 4);
        IS(flow_dealloc(one[0]), 0);
        IS(fevent(set, queue, NULL), 1);
        expect(queue, one[1], FLOW_PKT);
        IS(flow_read(one[1], buffer, 64), 4);
        expect(queue, one[1], FLOW_DEALLOC);
        IS(fevent(set, queue, &soon), -ETIMEDOUT);
        TRUE(fset_has(set, one[1]));
        IS(flow_dealloc(one[1]), 0);
        fset_destroy(set);
        fqueue_destroy(queue);
        end_flow(two);
}

/* More than are looked at one by one. */
static void test_many_flows(void)
{
        enum { COUNT = 20 };
        int flows[COUNT][2];
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        for (int i = 0; i < COUNT; ++i) {
                make_flow(flows[i], NULL, NULL);
                IS(fset_add(set, flows[i][1]), 0);
        }
        IS(fevent(set, queue, &soon), -ETIMEDOUT);
        for (int round = 0; round < 3; ++round)
                for (int i = 0; i < COUNT; ++i) {
                        IS(flow_write(flows[i][0], &i, sizeof(i)), sizeof(i));
                        IS(fevent(set, queue, NULL), 1);
                        expect(queue, flows[i][1], FLOW_PKT);
                        IS(flow_read(flows[i][1], buffer, 64), sizeof(i));
                        IS(fqueue_next(queue), -EPERM);
                }
        IS(fevent(set, queue, &at_once), -ETIMEDOUT);
        IS(flow_dealloc(flows[3][0]), 0);
        IS(fevent(set, queue, NULL), 1);
        expect(queue, flows[3][1], FLOW_DEALLOC);
        IS(fevent(set, queue, &at_once), -ETIMEDOUT);
        for (int i = 0; i < COUNT; ++i) {
                if (i != 3)
                        IS(flow_dealloc(flows[i][0]), 0);
                IS(flow_dealloc(flows[i][1]), 0);
        }
        fset_destroy(set);
        fqueue_destroy(queue);
}

static fset_t * watched;

static void * destroy_it(void * nothing)
{
        fset_destroy(watched);
        return nothing;
}

static void test_a_set_that_is_destroyed_lets_go_of_who_waits(void)
{
        pthread_t thread;
        fqueue_t * queue = fqueue_create();
        watched = fset_create();
        IS(pthread_create(&thread, NULL, destroy_it, NULL), 0);
        IS(fevent(watched, queue, NULL), -EINVAL);
        IS(pthread_join(thread, NULL), 0);
        fqueue_destroy(queue);
}

static void * write_to(void * argument)
{
        int fd = *(int *) argument;
        for (int i = 0; i < 1000; ++i)
                IS(flow_write(fd, &i, sizeof(i)), sizeof(i));
        return NULL;
}

static void test_no_event_is_lost_between_threads(void)
{
        int ends[2], number, wanted = 0;
        pthread_t thread;
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        make_flow(ends, NULL, NULL);
        IS(fset_add(set, ends[1]), 0);
        IS(pthread_create(&thread, NULL, write_to, &ends[0]), 0);
        while (wanted < 1000) {
                IS(fevent(set, queue, &late), 1);
                while (fqueue_next(queue) == ends[1]) {
                        IS(flow_read(ends[1], buffer, 64), sizeof(number));
                        memcpy(&number, buffer, sizeof(number));
                        IS(number, wanted++);
                }
        }
        IS(pthread_join(thread, NULL), 0);
        end_flow(ends);
        fset_destroy(set);
        fqueue_destroy(queue);
}

int main(void)
{
        test_members();
        test_handles();
        test_events();
        test_many_flows();
        test_a_set_that_is_destroyed_lets_go_of_who_waits();
        test_no_event_is_lost_between_threads();
        return done();
}
