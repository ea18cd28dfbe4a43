/* flow_alloc, flow_accept, flow_dealloc, flow_read, flow_write: results, errors, order, partial reads, time limits. */

#include "check.h"

static char buffer[4096];

static void test_getting_a_flow(void)
{
        int ends[2];
        qosspec_t asked = qos_data, accepted;
        memset(&accepted, 0, sizeof(accepted));
        asked.in_order = 7;
        make_flow(ends, &asked, &accepted);
        IS(ends[0] + ends[1], 64 + 65);
        IS(accepted.delay, 1000);
        IS(accepted.loss, 0);
        IS(accepted.in_order, 1);
        IS(accepted.max_gap, 2000);
        IS(accepted.timeout, DEFAULT_PEER_TIMEOUT);
        TRUE(memcmp(&asked.delay, &accepted.delay, sizeof(uint32_t)) == 0 && asked.in_order == 1);
        end_flow(ends);
        /* The lowest descriptors are used again. */
        make_flow(ends, NULL, &accepted);
        IS(ends[0] + ends[1], 64 + 65);
        IS(accepted.delay, UINT32_MAX);
        IS(accepted.bandwidth, 0);
        IS(accepted.loss, 1);
        IS(accepted.ber, 1);
        end_flow(ends);
}

static void test_not_getting_one(void)
{
        struct timespec wrong = {0, 1000000000}, over = {-1, 0};
        char name[400];
        IS(flow_alloc(NULL, NULL, NULL), -EINVAL);
        IS(flow_join(NULL, NULL), -EINVAL);
        IS(flow_alloc(NAME, NULL, &wrong), -EINVAL);
        IS(flow_accept(NULL, &wrong), -EINVAL);
        IS(flow_join("x", &wrong), -EINVAL);
        IS(flow_alloc("nobody offers this", NULL, &at_once), -ENAME);
        IS(flow_alloc("not \xff UTF-8", NULL, NULL), -ENAME);
        memset(name, 'n', sizeof(name) - 1);
        name[sizeof(name) - 1] = 0;
        IS(flow_alloc(name, NULL, NULL), -ENAME);
        IS(flow_alloc("", NULL, NULL), -ENAME);
        IS(irm_bind_process(getpid(), NAME), 0);
        IS(flow_alloc(NAME, NULL, &at_once), -ETIMEDOUT);
        IS(flow_accept(NULL, &at_once), -ETIMEDOUT);
        IS(flow_accept(NULL, &over), -ETIMEDOUT);
        double start = now();
        IS(flow_accept(NULL, &soon), -ETIMEDOUT);
        IS(flow_alloc(NAME, NULL, &soon), -ETIMEDOUT);
        TRUE(now() - start >= 0.04);
}

static void test_descriptors_without_a_flow(void)
{
        int wrong[] = {-1, 4096, 10239, 10240, INT32_MAX, INT32_MIN};
        int none[] = {0, 1, 63, 64, 4095};
        for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); ++i) {
                IS(flow_read(wrong[i], buffer, 1), -EBADF);
                IS(flow_write(wrong[i], buffer, 1), -EBADF);
                IS(fccntl(wrong[i], FLOWGFLAGS, buffer), -EBADF);
                IS(flow_dealloc(wrong[i]), -EINVAL);
        }
        for (size_t i = 0; i < sizeof(none) / sizeof(*none); ++i) {
                IS(flow_read(none[i], buffer, 1), -ENOTALLOC);
                IS(flow_write(none[i], buffer, 1), -ENOTALLOC);
                IS(fccntl(none[i], FLOWGFLAGS, buffer), -ENOTALLOC);
                IS(flow_dealloc(none[i]), -ENOTALLOC);
        }
}

static void test_packets(void)
{
        int ends[2];
        make_flow(ends, NULL, NULL);
        IS(flow_write(ends[0], NULL, 1), -EINVAL);
        IS(flow_read(ends[1], NULL, 1), -EINVAL);
        IS(flow_write(ends[0], NULL, 0), 0);
        IS(flow_write(ends[0], "one", 3), 3);
        IS(flow_write(ends[0], "", 0), 0);
        IS(flow_write(ends[0], "three", 5), 5);
        /* Empty packets are not sent. */
        IS(flow_read(ends[1], buffer, sizeof(buffer)), 3);
        TRUE(memcmp(buffer, "one", 3) == 0);
        IS(flow_read(ends[1], buffer, sizeof(buffer)), 5);
        TRUE(memcmp(buffer, "three", 5) == 0);
        /* The longest, and one byte more. */
        size_t longest = 1 << 20;
        char * large = malloc(longest + 1), * copy = malloc(longest + 1);
        memset(large, 'L', longest + 1);
        IS(flow_write(ends[1], large, longest + 1), -EMSGSIZE);
        IS(flow_write(ends[1], large, longest), longest);
        IS(flow_read(ends[0], copy, longest + 1), longest);
        TRUE(memcmp(large, copy, longest) == 0);
        IS(flow_write(ends[1], large, SIZE_MAX), -EMSGSIZE);
        free(large);
        free(copy);
        end_flow(ends);
}

static void test_partial_reads(void)
{
        int ends[2];
        uint32_t flags = FLOWFDEFAULT | FLOWFRNOPART;
        make_flow(ends, NULL, NULL);
        memset(buffer, 'p', 100);
        IS(flow_write(ends[0], buffer, 100), 100);
        IS(flow_read(ends[1], buffer, 40), 40);
        IS(flow_read(ends[1], buffer, 40), 40);
        IS(flow_read(ends[1], buffer, 40), 20);
        IS(flow_write(ends[0], buffer, 80), 80);
        IS(flow_read(ends[1], buffer, 40), 40);
        IS(flow_read(ends[1], buffer, 40), 40);
        IS(flow_read(ends[1], buffer, 40), 0);
        IS(flow_write(ends[0], buffer, 16), 16);
        IS(flow_read(ends[1], buffer, 16), 16);
        IS(flow_read(ends[1], buffer, 16), 0);
        IS(flow_write(ends[0], buffer, 5), 5);
        IS(flow_read(ends[1], NULL, 0), 0);
        IS(flow_read(ends[1], buffer, 10), 5);
        /* Whole packets only: what does not fit stays, and there is no mark. */
        IS(fccntl(ends[1], FLOWSFLAGS, flags), 0);
        IS(flow_write(ends[0], buffer, 40), 40);
        IS(flow_read(ends[1], buffer, 39), -EMSGSIZE);
        IS(flow_read(ends[1], buffer, 40), 40);
        IS(flow_write(ends[0], buffer, 8), 8);
        IS(flow_read(ends[1], buffer, 40), 8);
        end_flow(ends);
}

static void test_time_limits(void)
{
        int ends[2];
        make_flow(ends, NULL, NULL);
        IS(fccntl(ends[0], FLOWSRCVTIMEO, &at_once), 0);
        IS(flow_read(ends[0], buffer, 1), -ETIMEDOUT);
        IS(fccntl(ends[0], FLOWSRCVTIMEO, &soon), 0);
        double start = now();
        IS(flow_read(ends[0], buffer, 1), -ETIMEDOUT);
        TRUE(now() - start >= 0.02);
        IS(fccntl(ends[0], FLOWSFLAGS, (uint32_t) (FLOWFDEFAULT | FLOWFNONBLOCK)), 0);
        IS(flow_read(ends[0], buffer, 1), -EAGAIN);
        /* A full ring. */
        ssize_t written;
        long count = 0;
        while ((written = flow_write(ends[0], buffer, sizeof(buffer))) == (ssize_t) sizeof(buffer))
                ++count;
        IS(written, -EAGAIN);
        TRUE(count > 100);
        IS(fccntl(ends[0], FLOWSFLAGS, (uint32_t) FLOWFDEFAULT), 0);
        IS(fccntl(ends[0], FLOWSSNDTIMEO, &soon), 0);
        start = now();
        IS(flow_write(ends[0], buffer, sizeof(buffer)), -ETIMEDOUT);
        TRUE(now() - start >= 0.02);
        /* Nothing of it is lost. */
        size_t queued;
        IS(fccntl(ends[1], FLOWGRXQLEN, &queued), 0);
        IS(queued, count);
        for (; count > 0; --count)
                TRUE(flow_read(ends[1], buffer, sizeof(buffer)) > 0 && flow_read(ends[1], buffer, 1) == 0);
        IS(fccntl(ends[1], FLOWSRCVTIMEO, &at_once), 0);
        IS(flow_read(ends[1], buffer, 1), -ETIMEDOUT);
        end_flow(ends);
}

static void test_the_end_of_a_flow(void)
{
        int ends[2];
        make_flow(ends, NULL, NULL);
        IS(flow_write(ends[0], "last", 4), 4);
        IS(flow_dealloc(ends[0]), 0);
        IS(flow_dealloc(ends[0]), -ENOTALLOC);
        IS(flow_read(ends[0], buffer, 1), -ENOTALLOC);
        IS(flow_write(ends[1], buffer, 1), -EFLOWDOWN);
        IS(flow_read(ends[1], buffer, sizeof(buffer)), 4);
        IS(flow_read(ends[1], buffer, sizeof(buffer)), -EFLOWDOWN);
        IS(flow_read(ends[1], buffer, sizeof(buffer)), -EFLOWDOWN);
        IS(flow_dealloc(ends[1]), 0);
}

int main(void)
{
        test_getting_a_flow();
        test_not_getting_one();
        test_descriptors_without_a_flow();
        test_packets();
        test_partial_reads();
        test_time_limits();
        test_the_end_of_a_flow();
        return done();
}
