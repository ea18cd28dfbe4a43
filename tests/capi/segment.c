/* Layers on an Ethernet segment: on DEVICE, one of each type. */

#include "check.h"

static void bootstrap(const char * name, const struct ipcp_config * settings)
{
        struct ipcp_config conf = *settings;
        pid_t pid = irm_create_ipcp(name, conf.type);
        TRUE(pid > 0);
        strcpy(conf.layer_info.name, name);
        strcpy(conf.eth.dev, getenv("DEVICE"));
        conf.layer_info.dir_hash_algo = DIR_HASH_SHA3_384;
        if (conf.type == IPCP_ETH_DIX)
                conf.eth.ethertype = 0xA7A7;
        IS(irm_bootstrap_ipcp(pid, &conf), 0);
        IS(irm_bootstrap_ipcp(pid, &conf), -EIPCP);
}

int main(void)
{
        bootstrap("dix", &eth_dix_default_conf);
        bootstrap("llc", &eth_llc_default_conf);
        return done();
}
