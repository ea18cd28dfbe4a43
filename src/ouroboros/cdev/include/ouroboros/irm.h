/*
 * Management of the node. All functions return a negative error number when they fail (ouroboros/errno.h).
 * Part of PyOuroboros, LGPL-2.1-or-later.
 */

#ifndef OUROBOROS_IRM_H
#define OUROBOROS_IRM_H

#include <sys/types.h>

#include <ouroboros/cdefs.h>
#include <ouroboros/ipcp.h>
#include <ouroboros/name.h>
#include <ouroboros/qos.h>

struct ipcp_list_info {
        /* The id of an IPC process: it is no process of the system. */
        pid_t pid;
        enum ipcp_type type;
        char name[NAME_SIZE];
        /* "Not enrolled." as long as it is in none. */
        char layer[NAME_SIZE];
};

__BEGIN_DECLS

/* Returns the id of the new IPC process. */
pid_t irm_create_ipcp(const char * name, enum ipcp_type type);

int irm_destroy_ipcp(pid_t pid);

/* Returns how many there are. The caller frees the array, which is NULL when there are none. */
ssize_t irm_list_ipcps(struct ipcp_list_info ** ipcps);

/* Make it a member of the layer of the member that is asked by the name dst. Connects it to nobody. */
int irm_enroll_ipcp(pid_t pid, const char * dst);

int irm_bootstrap_ipcp(pid_t pid, const struct ipcp_config * conf);

/* component: DT_COMP or MGMT_COMP. A connection that is lost is made again. With a neighbour of the prototype, DT_COMP has to
   be raw. Succeeds when they are connected. */
int irm_connect_ipcp(pid_t pid, const char * dst, const char * component, qosspec_t qs);

int irm_disconnect_ipcp(pid_t pid, const char * dst, const char * component);

/* prog: a path, or looked up on PATH. argv: argc arguments for a program that the node starts. */
int irm_bind_program(const char * prog, const char * name, uint16_t opts, int argc, char ** argv);

int irm_unbind_program(const char * prog, const char * name);

int irm_bind_process(pid_t pid, const char * name);

int irm_unbind_process(pid_t pid, const char * name);

int irm_create_name(struct name_info * info);

int irm_destroy_name(const char * name);

/* Returns how many there are. The caller frees the array, which is NULL when there are none. */
ssize_t irm_list_names(struct name_info ** names);

int irm_reg_name(const char * name, pid_t pid);

int irm_unreg_name(const char * name, pid_t pid);

__END_DECLS

#endif
