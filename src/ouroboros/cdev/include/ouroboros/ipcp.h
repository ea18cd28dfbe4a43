/*
 * Types and settings of IPC processes. Our node has those of type local, unicast, broadcast, udp4 and udp6 so far; the settings
 * of the others are here so that programs that fill them in compile.
 * Part of PyOuroboros, LGPL-2.1-or-later.
 */

#ifndef OUROBOROS_IPCP_H
#define OUROBOROS_IPCP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

/* Bytes, without the zero byte. */
#define IPCP_NAME_SIZE 255
#define LAYER_NAME_SIZE 255
#define DEV_NAME_SIZE 255

/* Parts of an IPC process that are connected to those of neighbours. */
#define DT_COMP "Data Transfer"
#define MGMT_COMP "Management"

enum ipcp_type {
        IPCP_LOCAL = 0,
        IPCP_UNICAST,
        IPCP_BROADCAST,
        IPCP_ETH_LLC,
        IPCP_ETH_DIX,
        IPCP_UDP4,
        IPCP_UDP6,
        IPCP_INVALID
};

/* How names are hashed in a layer. */
enum pol_dir_hash {
        DIR_HASH_SHA3_224,
        DIR_HASH_SHA3_256,
        DIR_HASH_SHA3_384,
        DIR_HASH_SHA3_512,
        DIR_HASH_INVALID
};

struct layer_info {
        char name[LAYER_NAME_SIZE + 1];
        enum pol_dir_hash dir_hash_algo;
};

/* --- unicast: routing, directory, addresses, congestion */

enum pol_link_state {
        LS_SIMPLE = 0,
        LS_LFA,
        LS_ECMP,
        LS_INVALID
};

/* Times in seconds. */
struct ls_config {
        enum pol_link_state pol;
        time_t t_recalc;
        time_t t_update;
        time_t t_timeo;
};

enum pol_routing {
        ROUTING_LINK_STATE = 0,
        ROUTING_INVALID
};

struct routing_config {
        enum pol_routing pol;
        union {
                struct ls_config ls;
        };
};

/* Bytes of an address and of an endpoint id, and hops. */
struct dt_config {
        struct {
                uint8_t addr_size;
                uint8_t eid_size;
                uint8_t max_ttl;
        };
        struct routing_config routing;
};

enum pol_dir {
        DIR_DHT = 0,
        DIR_INVALID
};

enum dir_dht_config_limits {
        DHT_ALPHA_MIN = 1,
        DHT_ALPHA_MAX = 10,
        DHT_K_MIN = 1,
        DHT_K_MAX = 20,
        DHT_T_EXPIRE_MIN = 10,
        DHT_T_EXPIRE_MAX = 86400,
        DHT_T_REFRESH_MIN = 3,
        DHT_T_REFRESH_MAX = 3600,
        DHT_T_REPLICATE_MIN = 3,
        DHT_T_REPLICATE_MAX = 3600
};

/* Times in seconds. */
struct dir_dht_config {
        struct {
                uint32_t alpha;
                uint32_t k;
                uint32_t t_expire;
                uint32_t t_refresh;
                uint32_t t_replicate;
        } params;
        uint64_t peer;
};

struct dir_config {
        enum pol_dir pol;
        union {
                struct dir_dht_config dht;
        };
};

enum pol_addr_auth {
        ADDR_AUTH_FLAT_RANDOM = 0,
        ADDR_AUTH_INVALID
};

enum pol_cong_avoid {
        CA_NONE = 0,
        CA_MB_ECN,
        CA_INVALID
};

struct uni_config {
        struct dt_config dt;
        struct dir_config dir;
        enum pol_addr_auth addr_auth_type;
        enum pol_cong_avoid cong_avoid;
};

/* --- Ethernet and UDP */

struct eth_config {
        char dev[DEV_NAME_SIZE + 1];
        /* Of type eth-dix. */
        uint16_t ethertype;
};

/* Addresses are in network order, the port is not. */
struct udp4_config {
        struct in_addr ip_addr;
        struct in_addr dns_addr;
        uint16_t port;
};

struct udp6_config {
        struct in6_addr ip_addr;
        struct in6_addr dns_addr;
        uint16_t port;
};

/* --- all of it */

struct ipcp_config {
        struct layer_info layer_info;
        enum ipcp_type type;
        union {
                struct uni_config unicast;
                struct udp4_config udp4;
                struct udp6_config udp6;
                struct eth_config eth;
        };
};

/* Settings to start from. */
#define OUROBOROS_LS {.pol = LS_SIMPLE, .t_recalc = 4, .t_update = 15, .t_timeo = 60}
#define OUROBOROS_ROUTING {.pol = ROUTING_LINK_STATE, .ls = OUROBOROS_LS}
#define OUROBOROS_DT {.addr_size = 4, .eid_size = 8, .max_ttl = 60, .routing = OUROBOROS_ROUTING}
#define OUROBOROS_DHT {.params = {.alpha = 3, .k = 8, .t_expire = 86400, .t_refresh = 900, .t_replicate = 900}}
#define OUROBOROS_DIR {.pol = DIR_DHT, .dht = OUROBOROS_DHT}
#define OUROBOROS_UNI \
        {.dt = OUROBOROS_DT, .dir = OUROBOROS_DIR, .addr_auth_type = ADDR_AUTH_FLAT_RANDOM, .cong_avoid = CA_MB_ECN}
#define OUROBOROS_LAYER {.dir_hash_algo = DIR_HASH_SHA3_256}

#ifndef __cplusplus

static const struct ls_config default_ls_config = OUROBOROS_LS;
static const struct routing_config default_routing_config = OUROBOROS_ROUTING;
static const struct dt_config default_dt_config = OUROBOROS_DT;
static const struct dir_dht_config default_dht_config = OUROBOROS_DHT;
static const struct dir_config default_dir_config = OUROBOROS_DIR;
static const struct uni_config default_uni_config = OUROBOROS_UNI;

static const struct ipcp_config local_default_conf = {.layer_info = OUROBOROS_LAYER, .type = IPCP_LOCAL};
static const struct ipcp_config uni_default_conf = {
        .layer_info = OUROBOROS_LAYER, .type = IPCP_UNICAST, .unicast = OUROBOROS_UNI};
static const struct ipcp_config bc_default_conf = {.type = IPCP_BROADCAST};
static const struct ipcp_config eth_llc_default_conf = {.layer_info = OUROBOROS_LAYER, .type = IPCP_ETH_LLC};
static const struct ipcp_config eth_dix_default_conf = {
        .layer_info = OUROBOROS_LAYER, .type = IPCP_ETH_DIX, .eth = {.ethertype = 0xA000}};
static const struct ipcp_config udp4_default_conf = {.type = IPCP_UDP4, .udp4 = {.port = 3435}};
static const struct ipcp_config udp6_default_conf = {.type = IPCP_UDP6, .udp6 = {.port = 3435}};

#endif

#endif
