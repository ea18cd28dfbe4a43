/* Settings of a flow. Part of PyOuroboros, LGPL-2.1-or-later. */

#ifndef OUROBOROS_FCCNTL_H
#define OUROBOROS_FCCNTL_H

#include <sys/time.h>

#include <ouroboros/cdefs.h>

/* Flags of a flow. Setting them replaces all: without an access mode the flow is read-only. */
#define FLOWFRDONLY 00
#define FLOWFWRONLY 01
#define FLOWFRDWR 02
#define FLOWFACCMODE 03
/* No packet passes, either way, until it is cleared. */
#define FLOWFDOWN 04
/* Calls return -EAGAIN instead of waiting. */
#define FLOWFRNOBLOCK 01000
#define FLOWFWNOBLOCK 02000
#define FLOWFNONBLOCK (FLOWFRNOBLOCK | FLOWFWNOBLOCK)
/* A packet is read whole or not at all. */
#define FLOWFRNOPART 010000
/* A packet is written whole or not at all, which is so anyway. */
#define FLOWFWNOPART 020000
#define FLOWFDEFAULT (FLOWFRDWR | FLOWFWNOPART)
#define FLOWFINVALID (FLOWFWRONLY | FLOWFRDWR)

/* Flags of a flow that is in order: packets are sent again; the window of the peer is obeyed; dealloc lingers. */
#define FRCTFRTX 01
#define FRCTFRESCNTL 02
#define FRCTFLINGER 04

/* Commands, and the third argument of each. */
#define FLOWSRCVTIMEO 01   /* const struct timespec *: time limit of a read; NULL for none */
#define FLOWGRCVTIMEO 02   /* struct timespec *; -EPERM when there is none */
#define FLOWSSNDTIMEO 03   /* const struct timespec *: time limit of a write; NULL for none */
#define FLOWGSNDTIMEO 04   /* struct timespec *; -EPERM when there is none */
#define FLOWGQOSSPEC 05    /* qosspec_t * */
#define FLOWSFLAGS 06      /* uint32_t */
#define FLOWGFLAGS 07      /* uint32_t * */
#define FLOWGRXQLEN 010    /* size_t *: packets that were not read yet */
#define FLOWGTXQLEN 011    /* size_t *: packets that the peer has not read yet */
#define FRCTSFLAGS 01000   /* uint16_t; -EPERM when the flow is not in order */
#define FRCTGFLAGS 02000   /* uint16_t *; -EPERM when the flow is not in order */

__BEGIN_DECLS

int fccntl(int fd, int cmd, ...);

__END_DECLS

#endif
