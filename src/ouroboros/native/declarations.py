"""The C interface, as far as it is used, for each version that is known. Pure.

Written from the layouts of `irm.md` 17.2. Versions 0.22 and 0.23 have one layout; 0.21 has another QoS, shorter names and
configurations, and other numbers for two errors.
"""

from __future__ import annotations

#: Versions whose layouts are known, newest first.
KNOWN = ((0, 23), (0, 22), (0, 21))

_COMMON = """
struct timespec { long tv_sec; long tv_nsec; };
typedef struct fset fset_t;
typedef struct fqueue fqueue_t;

int flow_alloc(const char * dst, qosspec_t * qs, const struct timespec * timeo);
int flow_accept(qosspec_t * qs, const struct timespec * timeo);
int flow_dealloc(int fd);
ssize_t flow_write(int fd, const void * buf, size_t count);
ssize_t flow_read(int fd, void * buf, size_t count);
int fccntl(int fd, int cmd, ...);

fset_t * fset_create(void);
void fset_destroy(fset_t * set);
int fset_add(fset_t * set, int fd);
void fset_del(fset_t * set, int fd);
fqueue_t * fqueue_create(void);
void fqueue_destroy(fqueue_t * fq);
int fqueue_next(fqueue_t * fq);
int fqueue_type(fqueue_t * fq);
ssize_t fevent(fset_t * set, fqueue_t * fq, const struct timespec * timeo);

struct ipcp_list_info { int32_t pid; int type; char name[255]; char layer[255]; };

int irm_create_ipcp(const char * name, int type);
int irm_destroy_ipcp(int pid);
ssize_t irm_list_ipcps(struct ipcp_list_info ** ipcps);
int irm_enroll_ipcp(int pid, const char * dst);
int irm_bootstrap_ipcp(int pid, const struct ipcp_config * conf);
int irm_connect_ipcp(int pid, const char * dst, const char * component, qosspec_t qs);
int irm_disconnect_ipcp(int pid, const char * dst, const char * component);
int irm_bind_program(const char * prog, const char * name, uint16_t opts, int argc, char ** argv);
int irm_unbind_program(const char * prog, const char * name);
int irm_bind_process(int pid, const char * name);
int irm_unbind_process(int pid, const char * name);
int irm_destroy_name(const char * name);
ssize_t irm_list_names(struct name_info ** names);
int irm_reg_name(const char * name, int pid);
int irm_unreg_name(const char * name, int pid);
"""

# Before _COMMON, which uses them.
_QOS_21 = """
typedef struct { uint32_t delay; uint64_t bandwidth; uint8_t availability; uint32_t loss; uint32_t ber; uint8_t in_order;
                 uint32_t max_gap; uint16_t cypher_s; uint32_t timeout; } qosspec_t;
"""
_QOS = """
typedef struct { uint32_t delay; uint64_t bandwidth; uint8_t availability; uint32_t loss; uint32_t ber; uint8_t in_order;
                 uint32_t max_gap; uint32_t timeout; } qosspec_t;
"""

_CONFIG_21 = """
struct name_info { char name[256]; int pol_lb; };
struct uni_config { uint8_t addr_size; uint8_t eid_size; uint8_t max_ttl; int routing; int addr_auth; int cong_avoid; };
struct udp4_config { uint32_t ip_addr; uint32_t dns_addr; uint16_t port; };
struct eth_config { char dev[256]; uint16_t ethertype; };
struct ipcp_config {
    char layer[256]; int hash; int type;
    union { struct uni_config unicast; struct udp4_config udp4; struct eth_config eth; };
};
"""
_CONFIG = """
struct name_info {
    char name[256]; int pol_lb;
    char server_enc[512]; char server_key[512]; char server_crt[512];
    char client_enc[512]; char client_key[512]; char client_crt[512];
};
struct uni_config {
    uint8_t addr_size; uint8_t eid_size; uint8_t max_ttl;
    struct { int pol; struct { int pol; int64_t t_recalc; int64_t t_update; int64_t t_timeo; } ls; } routing;
    struct { int pol; struct { uint32_t alpha; uint32_t k; uint32_t t_expire; uint32_t t_refresh; uint32_t t_replicate;
                               uint64_t peer; } dht; } dir;
    int addr_auth; int cong_avoid;
};
struct udp4_config { uint32_t ip_addr; uint32_t dns_addr; uint16_t port; };
struct udp6_config { uint8_t ip_addr[16]; uint8_t dns_addr[16]; uint16_t port; };
struct eth_config { char dev[256]; uint16_t ethertype; };
struct ipcp_config {
    char layer[256]; int hash; int type;
    union { struct uni_config unicast; struct udp4_config udp4; struct udp6_config udp6; struct eth_config eth; };
};
"""

_JOIN_21 = "int flow_join(const char * dst, qosspec_t * qs, const struct timespec * timeo);\n"
_JOIN = "int flow_join(const char * dst, const struct timespec * timeo);\n"
_NAME_21 = "int irm_create_name(const char * name, int pol);\n"
_NAME = "int irm_create_name(struct name_info * info);\n"

#: Of the C library of this process: for memory that the other library allocated.
LIBC = "void free(void * memory);"

# --- numbers

RECEIVE_TIMEOUT, SEND_TIMEOUT, SET_FLAGS = 0o1, 0o3, 0o6
RECEIVE_QUEUE, TRANSMIT_QUEUE = 0o10, 0o11

#: Events of a flow: it is set down, set up again, given back by the peer.
EVENT_DOWN, EVENT_UP, EVENT_DEALLOC = 2, 4, 16

#: Slots of a ring that can be used.
RING = 1023

EPERM, EBADF, EAGAIN, ENOMEM, EINVAL, EMSGSIZE, ECONNRESET, ETIMEDOUT = 1, 9, 11, 12, 22, 90, 104, 110
ENOTALLOC, EIPCPTYPE, EIRMD, EIPCP, EIPCPSTATE, EFLOWDOWN, EFLOWPEER = range(1000, 1007)
#: Numbers of 0.22 and later; 0.21 has the first two the other way round, and not the third.
ENAME, ECRYPT, EAUTH = 1007, 1008, 1009


def declarations(version: tuple[int, int]) -> str:
    """The declarations of a known version, for cffi."""
    if version < (0, 22):
        return _QOS_21 + _CONFIG_21 + _COMMON + _JOIN_21 + _NAME_21
    return _QOS + _CONFIG + _COMMON + _JOIN + _NAME


def error_number(version: tuple[int, int], result: int) -> int:
    """The number of an error, in the numbering of 0.23."""
    number = -result
    if version < (0, 22):
        return {1007: ECRYPT, 1008: ENAME}.get(number, number)
    return number
