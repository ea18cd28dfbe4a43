/* fork: flows stay the parent's, the child can have its own, and neither notices the end of the other. */

#include "check.h"

static int ends[2];
static fset_t * set;
static fqueue_t * queue;
static char buffer[64];

static int in_child(void (*work)(void), int how)
{
        int status;
        pid_t child = fork();
        TRUE(child >= 0);
        if (child == 0) {
                work();
                if (how)
                        exit(0);
                _exit(0);
        }
        IS(waitpid(child, &status, 0), child);
        return status;
}

static void nothing(void)
{
}

static void use_what_is_the_parents(void)
{
        IS(flow_read(ends[0], buffer, 1), -ENOTALLOC);
        IS(flow_write(ends[0], buffer, 1), -ENOTALLOC);
        IS(fccntl(ends[0], FLOWSFLAGS, (uint32_t) FLOWFDOWN), -ENOTALLOC);
        IS(flow_dealloc(ends[0]), -ENOTALLOC);
        IS(fset_add(set, ends[0]), -EINVAL);
        IS(fevent(set, queue, &at_once), -EINVAL);
        fset_destroy(set);
        fqueue_destroy(queue);
}

static void use_own_flows(void)
{
        int own[2];
        fset_t * mine = fset_create();
        fqueue_t * events = fqueue_create();
        make_flow(own, NULL, NULL);
        /* The numbers of the parent's flows are not used for others. */
        TRUE(own[0] > ends[0] && own[0] > ends[1] && own[1] > ends[0] && own[1] > ends[1]);
        IS(fset_add(mine, own[1]), 0);
        IS(flow_write(own[0], "child", 5), 5);
        IS(fevent(mine, events, &late), 1);
        IS(fqueue_next(events), own[1]);
        IS(flow_read(own[1], buffer, 64), 5);
        IS(irm_unbind_process(getpid(), NAME), 0);
        end_flow(own);
}

static void the_parent_is_unharmed(void)
{
        IS(flow_write(ends[0], "parent", 6), 6);
        IS(fevent(set, queue, &late), 1);
        IS(fqueue_next(queue), ends[1]);
        IS(fqueue_type(queue), FLOW_PKT);
        IS(flow_read(ends[1], buffer, 64), 6);
        IS(fevent(set, queue, &at_once), -ETIMEDOUT);
}

int main(void)
{
        set = fset_create();
        queue = fqueue_create();
        make_flow(ends, NULL, NULL);
        IS(fset_add(set, ends[1]), 0);
        void (*works[])(void) = {nothing, use_what_is_the_parents, use_own_flows};
        for (int i = 0; i < 3; ++i)
                for (int how = 0; how < 2; ++how) {
                        IS(in_child(works[i], how), 0);
                        the_parent_is_unharmed();
                }
        end_flow(ends);
        return done();
}
