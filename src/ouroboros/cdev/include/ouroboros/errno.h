/*
 * Error numbers. Functions return them negated; errno is not set.
 * Part of PyOuroboros, LGPL-2.1-or-later.
 */

#ifndef OUROBOROS_ERRNO_H
#define OUROBOROS_ERRNO_H

#include <errno.h>

/* The descriptor has no flow, or it is one of the process that forked this one. */
#define ENOTALLOC 1000
/* No IPC process of that type. */
#define EIPCPTYPE 1001
/* No node to talk to. */
#define EIRMD 1002
/* The IPC process cannot, or the flow was refused. */
#define EIPCP 1003
/* The IPC process is in the wrong state. */
#define EIPCPSTATE 1004
/* The flow is down: the peer gave it back, or it was set down. */
#define EFLOWDOWN 1005
/* The flow is down: the peer died or does not answer. */
#define EFLOWPEER 1006
/* Nobody offers the name, or it is no name. */
#define ENAME 1007
/* Encryption was asked for and is not to be had. */
#define ECRYPT 1008
/* A side could not prove who it is. */
#ifndef EAUTH
#define EAUTH 1009
#endif

#endif
