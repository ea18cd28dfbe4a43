/* Names. Part of PyOuroboros, LGPL-2.1-or-later. */

#ifndef OUROBOROS_NAME_H
#define OUROBOROS_NAME_H

/* Bytes of a name, and of a path, without the zero byte. */
#define NAME_SIZE 255
#define NAME_PATH_SIZE (NAME_SIZE + 256)

/* irm_bind_program(): the node starts the program when it is needed. */
#define BIND_AUTO 1

/* Who gets the next flow to a name: who waits longest, or who came last. */
enum pol_balance {
        LB_RR = 0,
        LB_SPILL,
        LB_INVALID
};

/* Files: settings of encryption, private key, certificate. Empty for the usual place. */
struct name_sec_paths {
        char enc[NAME_PATH_SIZE + 1];
        char key[NAME_PATH_SIZE + 1];
        char crt[NAME_PATH_SIZE + 1];
};

struct name_info {
        char name[NAME_SIZE + 1];
        enum pol_balance pol_lb;
        /* Of who accepts, and of who allocates. */
        struct name_sec_paths s;
        struct name_sec_paths c;
};

#endif
