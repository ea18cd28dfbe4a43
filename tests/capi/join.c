/* flow_join: a packet reaches all members of a broadcast layer but its sender. */

#include "check.h"

int main(void)
{
        struct ipcp_config conf = bc_default_conf;
        qosspec_t qs;
        char packet[16];
        int members[3];
        pid_t pid = irm_create_ipcp("chat0", IPCP_BROADCAST);
        strcpy(conf.layer_info.name, "chat");
        IS(flow_join("chat", &at_once), -ENAME);
        IS(irm_bootstrap_ipcp(pid, &conf), 0);
        for (int i = 0; i < 3; ++i)
                TRUE((members[i] = flow_join("chat", i == 0 ? NULL : &late)) >= 64);
        IS(fccntl(members[0], FLOWGQOSSPEC, &qs), 0);
        IS(qs.timeout, 0);
        IS(qs.loss, UINT32_MAX);
        IS(flow_write(members[1], "hello", 5), 5);
        IS(flow_read(members[0], packet, 16), 5);
        IS(flow_read(members[2], packet, 16), 5);
        TRUE(memcmp(packet, "hello", 5) == 0);
        IS(fccntl(members[1], FLOWSRCVTIMEO, &soon), 0);
        IS(flow_read(members[1], packet, 16), -ETIMEDOUT);
        /* The layer goes, and its members are told. */
        IS(irm_destroy_ipcp(pid), 0);
        IS(flow_read(members[0], packet, 16), -EFLOWDOWN);
        for (int i = 0; i < 3; ++i)
                IS(flow_dealloc(members[i]), 0);
        return done();
}
