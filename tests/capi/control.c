/* fccntl: every command, its argument and its errors. */

#include "check.h"

static void test_time_limits(int fd)
{
        struct timespec limit = {3, 500}, wrong = {0, -1}, got = {0, 0};
        int set[] = {FLOWSRCVTIMEO, FLOWSSNDTIMEO}, get[] = {FLOWGRCVTIMEO, FLOWGSNDTIMEO};
        for (int i = 0; i < 2; ++i) {
                IS(fccntl(fd, get[i], &got), -EPERM);
                IS(fccntl(fd, get[i], NULL), -EINVAL);
                IS(fccntl(fd, set[i], &wrong), -EINVAL);
                IS(fccntl(fd, set[i], &limit), 0);
                IS(fccntl(fd, get[i], &got), 0);
                IS(got.tv_sec, 3);
                IS(got.tv_nsec, 500);
                IS(fccntl(fd, set[i], NULL), 0);
                IS(fccntl(fd, get[i], &got), -EPERM);
        }
}

static void test_flags(int fd, int peer)
{
        uint32_t flags = 0;
        char byte;
        IS(fccntl(fd, FLOWGFLAGS, NULL), -EINVAL);
        IS(fccntl(fd, FLOWGFLAGS, &flags), 0);
        IS(flags, FLOWFDEFAULT);
        IS(flags, 020002);
        IS(fccntl(fd, FLOWSFLAGS, (uint32_t) FLOWFINVALID), -EINVAL);
        /* Read-only, because no access mode is given. */
        IS(fccntl(fd, FLOWSFLAGS, (uint32_t) FLOWFRNOBLOCK), 0);
        IS(flow_write(fd, "x", 1), -EPERM);
        IS(flow_read(fd, &byte, 1), -EAGAIN);
        /* Write-only refuses the packets of the peer. */
        IS(fccntl(fd, FLOWSFLAGS, (uint32_t) FLOWFWRONLY), 0);
        IS(flow_read(fd, &byte, 1), -EPERM);
        IS(flow_write(peer, "x", 1), -EPERM);
        IS(flow_write(fd, "x", 1), 1);
        IS(flow_read(peer, &byte, 1), 1);
        IS(flow_read(peer, &byte, 1), 0);
        /* Down, and up again. */
        IS(fccntl(fd, FLOWSFLAGS, (uint32_t) (FLOWFDEFAULT | FLOWFDOWN)), 0);
        IS(fccntl(fd, FLOWGFLAGS, &flags), 0);
        IS(flags, FLOWFDEFAULT | FLOWFDOWN);
        IS(flow_read(peer, &byte, 1), -EFLOWDOWN);
        IS(flow_write(fd, "x", 1), -EFLOWDOWN);
        IS(fccntl(fd, FLOWSFLAGS, (uint32_t) FLOWFDEFAULT | 0xffff0000u), 0);
        IS(fccntl(fd, FLOWGFLAGS, &flags), 0);
        IS(flags, FLOWFDEFAULT);
        IS(flow_write(fd, "x", 1), 1);
        IS(flow_read(peer, &byte, 1), 1);
        IS(flow_read(peer, &byte, 1), 0);
}

static void test_queues(int fd, int peer)
{
        size_t length = 77;
        char packet[8];
        IS(fccntl(fd, FLOWGRXQLEN, NULL), -EINVAL);
        IS(fccntl(fd, FLOWGTXQLEN, NULL), -EINVAL);
        IS(fccntl(fd, FLOWGRXQLEN, &length), 0);
        IS(length, 0);
        for (int i = 0; i < 3; ++i)
                IS(flow_write(peer, "packet", 6), 6);
        IS(fccntl(fd, FLOWGRXQLEN, &length), 0);
        IS(length, 3);
        IS(fccntl(peer, FLOWGTXQLEN, &length), 0);
        IS(length, 3);
        for (int i = 0; i < 3; ++i)
                IS(flow_read(fd, packet, 8), 6);
        IS(fccntl(peer, FLOWGTXQLEN, &length), 0);
        IS(length, 0);
}

static void test_frct(const qosspec_t * asked, int first)
{
        int ends[2];
        uint16_t flags = 77;
        qosspec_t qs = *asked, got;
        make_flow(ends, &qs, NULL);
        IS(fccntl(ends[1], FLOWGQOSSPEC, NULL), -EINVAL);
        IS(fccntl(ends[1], FLOWGQOSSPEC, &got), 0);
        IS(got.delay, asked->delay);
        IS(got.bandwidth, asked->bandwidth);
        IS(got.availability, asked->availability);
        IS(got.loss, asked->loss);
        IS(got.ber, asked->ber);
        IS(got.in_order, asked->in_order);
        IS(got.max_gap, asked->max_gap);
        IS(got.timeout, asked->timeout);
        if (first == 0) {
                IS(fccntl(ends[1], FRCTGFLAGS, &flags), -EPERM);
                IS(fccntl(ends[1], FRCTSFLAGS, FRCTFLINGER), -EPERM);
        } else {
                IS(fccntl(ends[1], FRCTGFLAGS, NULL), -EINVAL);
                IS(fccntl(ends[1], FRCTGFLAGS, &flags), 0);
                IS(flags, first);
                IS(fccntl(ends[1], FRCTSFLAGS, 010), -EINVAL);
                /* Whether packets are sent again stays as it is. */
                IS(fccntl(ends[1], FRCTSFLAGS, FRCTFLINGER | FRCTFRTX), 0);
                IS(fccntl(ends[1], FRCTGFLAGS, &flags), 0);
                IS(flags, FRCTFLINGER | (first & FRCTFRTX));
        }
        end_flow(ends);
}

int main(void)
{
        int ends[2];
        make_flow(ends, NULL, NULL);
        test_time_limits(ends[0]);
        test_flags(ends[0], ends[1]);
        test_queues(ends[0], ends[1]);
        IS(fccntl(ends[0], 0, 0), -ENOTSUP);
        IS(fccntl(ends[0], 012, 0), -ENOTSUP);
        IS(fccntl(ends[0], -1, 0), -ENOTSUP);
        end_flow(ends);
        test_frct(&qos_raw, 0);
        test_frct(&qos_raw_no_errors, 0);
        test_frct(&qos_best_effort, FRCTFRESCNTL);
        test_frct(&qos_video, FRCTFRESCNTL);
        test_frct(&qos_voice, FRCTFRESCNTL);
        test_frct(&qos_data, FRCTFRTX | FRCTFRESCNTL | FRCTFLINGER);
        return done();
}
