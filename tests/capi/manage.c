/* The 16 functions of libouroboros-irm, and the layout of what they take. */

#include "check.h"

#include <arpa/inet.h>
#include <stddef.h>

#define AT(type, field, where) _Static_assert(offsetof(type, field) == (where), #type "." #field)

_Static_assert(sizeof(qosspec_t) == 40, "qosspec_t");
AT(qosspec_t, bandwidth, 8);
AT(qosspec_t, availability, 16);
AT(qosspec_t, loss, 20);
AT(qosspec_t, ber, 24);
AT(qosspec_t, in_order, 28);
AT(qosspec_t, max_gap, 32);
AT(qosspec_t, timeout, 36);
_Static_assert(sizeof(struct ipcp_list_info) == 520, "ipcp_list_info");
AT(struct ipcp_list_info, type, 4);
AT(struct ipcp_list_info, name, 8);
AT(struct ipcp_list_info, layer, 263);
_Static_assert(sizeof(struct name_info) == 3332, "name_info");
AT(struct name_info, pol_lb, 256);
AT(struct name_info, s.enc, 260);
AT(struct name_info, s.key, 772);
AT(struct name_info, s.crt, 1284);
AT(struct name_info, c.enc, 1796);
_Static_assert(sizeof(struct ipcp_config) == 528, "ipcp_config");
AT(struct ipcp_config, layer_info.dir_hash_algo, 256);
AT(struct ipcp_config, type, 260);
AT(struct ipcp_config, unicast.dt.addr_size, 264);
AT(struct ipcp_config, unicast.dt.routing.pol, 272);
AT(struct ipcp_config, unicast.dt.routing.ls.pol, 280);
AT(struct ipcp_config, unicast.dt.routing.ls.t_recalc, 288);
AT(struct ipcp_config, unicast.dir.pol, 312);
AT(struct ipcp_config, unicast.dir.dht.params.alpha, 320);
AT(struct ipcp_config, unicast.dir.dht.peer, 344);
AT(struct ipcp_config, unicast.addr_auth_type, 352);
AT(struct ipcp_config, unicast.cong_avoid, 356);
AT(struct ipcp_config, udp4.ip_addr, 264);
AT(struct ipcp_config, udp4.dns_addr, 268);
AT(struct ipcp_config, udp4.port, 272);
AT(struct ipcp_config, udp6.dns_addr, 280);
AT(struct ipcp_config, udp6.port, 296);
AT(struct ipcp_config, eth.ethertype, 520);

static struct ipcp_list_info ipcp_named(const char * name)
{
        struct ipcp_list_info * list, found = {.pid = 0};
        ssize_t count = irm_list_ipcps(&list);
        TRUE(count >= 0 && (count > 0) == (list != NULL));
        for (ssize_t i = 0; i < count; ++i)
                if (strcmp(list[i].name, name) == 0)
                        found = list[i];
        free(list);
        return found;
}

static int policy_of(const char * name)
{
        struct name_info * list;
        int found = LB_INVALID;
        ssize_t count = irm_list_names(&list);
        TRUE(count >= 0 && (count > 0) == (list != NULL));
        for (ssize_t i = 0; i < count; ++i)
                if (strcmp(list[i].name, name) == 0) {
                        IS(list[i].s.crt[0] | list[i].c.enc[0], 0);
                        found = (int) list[i].pol_lb;
                }
        free(list);
        return found;
}

static void test_layers(void)
{
        struct ipcp_config conf = local_default_conf, udp = udp4_default_conf, segment = eth_llc_default_conf;
        IS(irm_create_ipcp(NULL, IPCP_LOCAL), -EINVAL);
        IS(irm_create_ipcp("x", IPCP_INVALID), -EINVAL);
        pid_t lan = irm_create_ipcp("lan0", IPCP_ETH_LLC);
        TRUE(lan > 0);
        strcpy(segment.layer_info.name, "segment");
        memset(segment.eth.dev, 'x', sizeof(segment.eth.dev));
        IS(irm_bootstrap_ipcp(lan, &segment), -EINVAL);
        strcpy(segment.eth.dev, "no-such-device0");
        IS(irm_bootstrap_ipcp(lan, &segment), -EIPCP);
        IS(irm_destroy_ipcp(lan), 0);
        pid_t lab = irm_create_ipcp("lab0", IPCP_LOCAL);
        TRUE(lab > 0);
        IS(irm_create_ipcp("lab0", IPCP_LOCAL), -EIPCP);
        struct ipcp_list_info info = ipcp_named("lab0");
        IS(info.pid, lab);
        IS(info.type, IPCP_LOCAL);
        IS(strcmp(info.layer, "Not enrolled."), 0);
        IS(irm_bootstrap_ipcp(lab, NULL), -EINVAL);
        IS(irm_bootstrap_ipcp(lab, &conf), -EINVAL);
        strcpy(conf.layer_info.name, "lab");
        IS(irm_bootstrap_ipcp(1, &conf), -EIPCP);
        IS(irm_bootstrap_ipcp(lab, &conf), 0);
        IS(irm_bootstrap_ipcp(lab, &conf), -EIPCP);
        IS(strcmp(ipcp_named("lab0").layer, "lab"), 0);
        memset(conf.layer_info.name, 'x', sizeof(conf.layer_info.name));
        IS(irm_bootstrap_ipcp(lab, &conf), -EINVAL);
        /* Over UDP. */
        pid_t net = irm_create_ipcp("net0", IPCP_UDP4);
        TRUE(net > lab);
        strcpy(udp.layer_info.name, "net");
        IS(irm_bootstrap_ipcp(lab, &udp), -EINVAL);
        IS(inet_pton(AF_INET, "127.0.0.1", &udp.udp4.ip_addr), 1);
        udp.udp4.port = 0;
        IS(irm_bootstrap_ipcp(net, &udp), -EIPCP);
        const char * port = getenv("UDP_PORT");
        udp.udp4.port = (uint16_t) atoi(port);
        IS(irm_bootstrap_ipcp(net, &udp), 0);
        info = ipcp_named("net0");
        IS(strcmp(info.layer, "net"), 0);
        IS(info.type, IPCP_UDP4);
        IS(irm_destroy_ipcp(net), 0);
        IS(irm_destroy_ipcp(net), -EIPCP);
        IS(ipcp_named("net0").pid, 0);
        IS(irm_list_ipcps(NULL), -EINVAL);
}

static void test_neighbours(void)
{
        pid_t chat = irm_create_ipcp("chat0", IPCP_BROADCAST), lab = ipcp_named("lab0").pid;
        TRUE(chat > 0 && lab > 0);
        IS(irm_enroll_ipcp(chat, NULL), -EINVAL);
        IS(irm_enroll_ipcp(lab, "lab"), -EIPCP);
        IS(irm_enroll_ipcp(1, "lab"), -EIPCP);
        IS(irm_enroll_ipcp(chat, "chat"), -EIPCP);
        IS(irm_connect_ipcp(chat, "chat", DT_COMP, qos_data), -ENOTSUP);
        IS(irm_connect_ipcp(chat, "chat", DT_COMP, qos_raw), -EIPCP);
        IS(irm_connect_ipcp(lab, "lab", DT_COMP, qos_raw), -EIPCP);
        IS(irm_connect_ipcp(1, "chat", DT_COMP, qos_raw), -EIPCP);
        IS(irm_connect_ipcp(chat, NULL, DT_COMP, qos_raw), -EINVAL);
        IS(irm_disconnect_ipcp(chat, "chat", MGMT_COMP), -EIPCP);
        IS(irm_disconnect_ipcp(lab, "lab", MGMT_COMP), -EIPCP);
        IS(irm_disconnect_ipcp(chat, "chat", NULL), -EINVAL);
        IS(irm_destroy_ipcp(chat), 0);
}

/* A first member with settings of all kinds, and one that enrolls with it. */
static void test_unicast(void)
{
        struct ipcp_config conf = uni_default_conf;
        strcpy(conf.layer_info.name, "campus");
        conf.layer_info.dir_hash_algo = DIR_HASH_SHA3_512;
        pid_t a = irm_create_ipcp("a", IPCP_UNICAST), b = irm_create_ipcp("b", IPCP_UNICAST);
        TRUE(a > 0 && b > 0);
        conf.unicast.dt.addr_size = 8;
        IS(irm_bootstrap_ipcp(a, &conf), -EIPCP);
        conf.unicast.dt.addr_size = 4;
        conf.unicast.dir.dht.params.k = DHT_K_MAX + 1;
        IS(irm_bootstrap_ipcp(a, &conf), -EIPCP);
        conf.unicast.dir.dht.params.k = DHT_K_MAX;
        conf.unicast.cong_avoid = CA_INVALID;
        IS(irm_bootstrap_ipcp(a, &conf), -EINVAL);
        conf.unicast.cong_avoid = CA_NONE;
        conf.unicast.dt.max_ttl = 17;
        conf.unicast.dt.routing.ls = (struct ls_config) {LS_ECMP, 2, 5, 20};
        conf.unicast.dir.dht.params.alpha = 7;
        conf.unicast.dir.dht.params.t_expire = 3600;
        conf.unicast.dir.dht.params.t_refresh = 60;
        conf.unicast.dir.dht.params.t_replicate = 61;
        IS(irm_connect_ipcp(b, "a", MGMT_COMP, qos_raw), -EIPCP);
        IS(irm_bootstrap_ipcp(a, &conf), 0);
        IS(irm_bootstrap_ipcp(a, &conf), -EIPCP);
        IS(irm_bind_process(a, "a"), 0);
        IS(irm_enroll_ipcp(b, "nobody"), -EIPCP);
        IS(irm_enroll_ipcp(b, "a"), 0);
        IS(irm_enroll_ipcp(b, "a"), -EIPCP);
        IS(strcmp(ipcp_named("b").layer, "campus"), 0);
        IS(irm_connect_ipcp(b, "a", "No Component", qos_raw), -EIPCP);
        IS(irm_connect_ipcp(b, "nobody", MGMT_COMP, qos_raw), -EIPCP);
        IS(irm_connect_ipcp(b, "a", MGMT_COMP, qos_raw), 0);
        IS(irm_connect_ipcp(b, "a", DT_COMP, qos_data), 0);
        IS(irm_connect_ipcp(b, "a", DT_COMP, qos_data), 0);
        IS(irm_disconnect_ipcp(b, "a", DT_COMP), 0);
        IS(irm_disconnect_ipcp(b, "a", DT_COMP), -EIPCP);
        IS(irm_connect_ipcp(b, "a", DT_COMP, qos_raw), 0);
}

static void test_names(void)
{
        struct name_info info = {.name = "clock", .pol_lb = LB_RR};
        pid_t lab = ipcp_named("lab0").pid;
        IS(irm_create_name(NULL), -EINVAL);
        IS(irm_create_name(&info), 0);
        IS(policy_of("clock"), LB_RR);
        strcpy(info.name, "spilling");
        info.pol_lb = LB_SPILL;
        IS(irm_create_name(&info), 0);
        IS(policy_of("spilling"), LB_SPILL);
        info.pol_lb = LB_INVALID;
        IS(irm_create_name(&info), -EINVAL);
        info.pol_lb = LB_RR;
        memset(info.name, 'n', sizeof(info.name));
        IS(irm_create_name(&info), -ENAME);
        strcpy(info.name, "secured");
        strcpy(info.s.crt, "/no/such/file");
        IS(irm_create_name(&info), -ENOENT);
        strcpy(info.s.crt, getenv("SOME_FILE"));
        strcpy(info.c.enc, getenv("SOME_FILE"));
        IS(irm_create_name(&info), 0);
        memset(info.c.enc, '/', sizeof(info.c.enc));
        IS(irm_create_name(&info), -EINVAL);
        IS(irm_reg_name("clock", lab), 0);
        IS(irm_reg_name("unknown", lab), -ENAME);
        IS(irm_reg_name(NULL, lab), -EINVAL);
        IS(irm_reg_name("clock", 1), -ENAME);
        IS(irm_unreg_name("clock", lab), 0);
        IS(irm_unreg_name(NULL, lab), -EINVAL);
        IS(irm_destroy_name("clock"), 0);
        IS(irm_destroy_name("clock"), -ENAME);
        IS(irm_destroy_name(NULL), -EINVAL);
        IS(policy_of("clock"), LB_INVALID);
        IS(irm_list_names(NULL), -EINVAL);
}

static void test_bindings(const char * self)
{
        char * arguments[] = {"--utc", "-l"};
        IS(irm_bind_program(NULL, "clock", 0, 0, NULL), -EINVAL);
        IS(irm_bind_program("sh", NULL, 0, 0, NULL), -EINVAL);
        IS(irm_bind_program("no such program", "clock", 0, 0, NULL), -ENOENT);
        IS(irm_bind_program("/no/such/program", "clock", 0, 0, NULL), -ENOENT);
        IS(irm_bind_program("/etc/passwd", "clock", 0, 0, NULL), -EACCES);
        IS(irm_bind_program("sh", "clock", 2, 0, NULL), -EINVAL);
        IS(irm_bind_program("sh", "clock", 0, 1, arguments), -EINVAL);
        IS(irm_bind_program("sh", "clock", BIND_AUTO, 1, NULL), -EINVAL);
        IS(irm_bind_program("sh", "clock", BIND_AUTO, -1, arguments), -EINVAL);
        IS(irm_bind_program("sh", "clock", BIND_AUTO, 2, arguments), 0);
        TRUE(strchr(getenv("PATH"), ':') != NULL);
        IS(irm_bind_program(self, "clock", 0, 0, NULL), 0);
        IS(irm_unbind_program("sh", "clock"), 0);
        IS(irm_unbind_program("sh", "clock"), -EPERM);
        IS(irm_unbind_program(self, "clock"), 0);
        IS(irm_unbind_program(NULL, "clock"), -EINVAL);
        IS(irm_bind_process(getpid(), "clock"), 0);
        IS(irm_bind_process(getpid(), NULL), -EINVAL);
        IS(irm_bind_process(1 << 21, "clock"), -EPERM);
        IS(irm_unbind_process(getpid(), "clock"), 0);
        IS(irm_unbind_process(getpid(), "clock"), -EPERM);
        IS(irm_unbind_process(getpid(), NULL), -EINVAL);
}

int main(int argc, char ** argv)
{
        (void) argc;
        test_layers();
        test_neighbours();
        test_unicast();
        test_names();
        test_bindings(argv[0]);
        return done();
}
