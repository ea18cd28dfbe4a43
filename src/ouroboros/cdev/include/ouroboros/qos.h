/* Quality of service of a flow. Part of PyOuroboros, LGPL-2.1-or-later. */

#ifndef OUROBOROS_QOS_H
#define OUROBOROS_QOS_H

#include <stdbool.h>
#include <stdint.h>

/* ms of silence after which a peer counts as dead, unless told otherwise. */
#define DEFAULT_PEER_TIMEOUT 120000

typedef struct qos_spec {
        /* Tolerable one-way delay, ms. */
        uint32_t delay;
        /* Wanted bandwidth, bit/s. */
        uint64_t bandwidth;
        /* Wanted availability, number of nines. */
        uint8_t availability;
        /* 0: everything has to arrive, in order. */
        uint32_t loss;
        /* Tolerable bit errors per 10^9 bits; 0 adds a checksum where one is needed. */
        uint32_t ber;
        /* Not 0: in order. */
        uint8_t in_order;
        /* Longest tolerable interruption, ms. */
        uint32_t max_gap;
        /* Silence after which the peer counts as dead, ms; 0 for never. */
        uint32_t timeout;
} qosspec_t;

#define OUROBOROS_QOS(delay, bandwidth, availability, loss, ber, in_order, max_gap) \
        {delay, bandwidth, availability, loss, ber, in_order, max_gap, DEFAULT_PEER_TIMEOUT}

/* No promise at all; the same as NULL. */
static const qosspec_t qos_raw = OUROBOROS_QOS(UINT32_MAX, 0, 0, 1, 1, 0, UINT32_MAX);
/* Damaged packets are dropped. */
static const qosspec_t qos_raw_no_errors = OUROBOROS_QOS(UINT32_MAX, 0, 0, 1, 0, 0, UINT32_MAX);
/* In order, losses allowed. */
static const qosspec_t qos_best_effort = OUROBOROS_QOS(UINT32_MAX, 0, 0, 1, 0, 1, UINT32_MAX);
/* Moving pictures. */
static const qosspec_t qos_video = OUROBOROS_QOS(100, UINT64_MAX, 3, 1, 0, 1, 100);
/* Speech. */
static const qosspec_t qos_voice = OUROBOROS_QOS(50, 100000, 5, 1, 0, 1, 50);
/* Files and messages: everything arrives, in order. */
static const qosspec_t qos_data = OUROBOROS_QOS(1000, 0, 0, 0, 0, 1, 2000);

#endif
