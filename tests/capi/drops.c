/* A program that gives up its rights: it is still one process to the node, with either library. */

#include "check.h"

#include <sys/prctl.h>

static void change_user(void)
{
        if (geteuid() == 0)
                IS(setuid(65534), 0);
        else
                IS(prctl(PR_SET_DUMPABLE, 0), 0);
        IS(prctl(PR_GET_DUMPABLE), 0);
}

int main(void)
{
        int first[2], second[2];
        char buffer[8];
        int is_root;
        IS(irm_bind_process(getpid(), NAME), 0);
        is_root = geteuid() == 0;
        change_user();
        /* Not over the connection that was made as root. */
        if (is_root)
                IS(irm_bind_process(getpid(), "other") < 0, 1);
        make_bound_flow(first, NULL, NULL);
        make_bound_flow(second, NULL, NULL);
        IS(flow_write(first[0], "still", 5), 5);
        IS(flow_read(first[1], buffer, 8), 5);
        end_flow(first);
        end_flow(second);
        return done();
}
