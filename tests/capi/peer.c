/*
 * One end of a flow, for tests that have the other end in another process.
 *
 *     peer accept | childless | reliable | hurry | alloc NAME | read | write TEXT | event | dealloc | fork | exit | die ...
 *
 * Carries out the words one after the other, and says what came of each.
 */

#include "check.h"

#include <signal.h>

static int fd;
static qosspec_t * qos;
static const struct timespec shortly = {0, 200 * 1000 * 1000};
static const struct timespec * limit;

static void wait_for_event(void)
{
        fset_t * set = fset_create();
        fqueue_t * queue = fqueue_create();
        IS(fset_add(set, fd), 0);
        IS(fevent(set, queue, NULL), 1);
        IS(fqueue_next(queue), fd);
        printf("event %d\n", (int) fqueue_type(queue));
        fset_destroy(set);
        fqueue_destroy(queue);
}

static void say_read(void)
{
        char packet[1500];
        ssize_t length = flow_read(fd, packet, sizeof(packet));
        if (length < 0)
                printf("read %zd\n", length);
        else
                printf("read %.*s\n", (int) length, packet);
}

int main(int argc, char ** argv)
{
        qosspec_t data = qos_data;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (int i = 1; i < argc; ++i) {
                const char * word = argv[i];
                if (strcmp(word, "accept") == 0)
                        printf("accept %d\n", fd = flow_accept(NULL, limit));
                else if (strcmp(word, "alloc") == 0)
                        printf("alloc %d\n", fd = flow_alloc(argv[++i], qos, limit));
                else if (strcmp(word, "childless") == 0)
                        signal(SIGCHLD, SIG_IGN);
                else if (strcmp(word, "hurry") == 0)
                        limit = &shortly;
                else if (strcmp(word, "join") == 0)
                        printf("join %d\n", fd = flow_join(argv[++i], limit));
                else if (strcmp(word, "reliable") == 0)
                        qos = &data;
                else if (strcmp(word, "read") == 0)
                        say_read();
                else if (strcmp(word, "write") == 0)
                        printf("write %zd\n", flow_write(fd, argv[i + 1], strlen(argv[i + 1]))), ++i;
                else if (strcmp(word, "event") == 0)
                        wait_for_event();
                else if (strcmp(word, "dealloc") == 0)
                        printf("dealloc %d\n", flow_dealloc(fd));
                else if (strcmp(word, "fork") == 0)
                        /* The child lives until our input ends. */
                        printf("fork %d\n", fork() == 0 ? (getchar(), _exit(0), 0) : 0);
                else if (strcmp(word, "listen") == 0)
                        getchar();
                else if (strcmp(word, "die") == 0)
                        raise(SIGKILL);
                else
                        return 2;
        }
        return 0;
}
