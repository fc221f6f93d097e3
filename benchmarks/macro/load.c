/* Load through librdkafka in C: the yardstick that every macro benchmark stands beside.
 *
 *   load produce BOOTSTRAP TOPIC PARTITIONS COUNT SIZE RATE [property=value ...]
 *   load consume BOOTSTRAP TOPIC PARTITIONS COUNT [property=value ...]
 *
 * Prints one line of JSON: records, bytes, seconds, the process's own CPU seconds, and for produce the latencies of
 * delivery in microseconds, and how long the middle took: from the delivery of a fifth of all records to that of nine
 * tenths, without what starting and ending take. RATE is records per second, 0 for as fast as it goes; with a rate, latency counts from the
 * moment at which a record was due, so that a stall is not hidden by the records that it held up. One record per
 * partition is sent ahead and not counted: until it is delivered the client connects.
 *
 * It is linked against the librdkafka that the confluent-kafka wheel carries, which brings no header; so the few
 * declarations that are needed stand here.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct {
    int err;
    rd_kafka_topic_t *topic;
    int32_t partition;
    void *payload;
    size_t length;
    void *key;
    size_t key_length;
    int64_t offset;
    void *opaque;
} rd_kafka_message_t;

enum { PRODUCER = 0, CONSUMER = 1, FLAG_COPY = 2, QUEUE_FULL = -184, PARTITION_EOF = -191 };

rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t);
void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *, void (*)(rd_kafka_t *, const rd_kafka_message_t *, void *));
rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, void *);
int rd_kafka_produce(rd_kafka_topic_t *, int32_t, int, void *, size_t, const void *, size_t, void *);
int rd_kafka_poll(rd_kafka_t *, int);
int rd_kafka_flush(rd_kafka_t *, int);
int rd_kafka_last_error(void);
const char *rd_kafka_err2str(int);
rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *);
int rd_kafka_consume_start_queue(rd_kafka_topic_t *, int32_t, int64_t, rd_kafka_queue_t *);
ptrdiff_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t);
void rd_kafka_message_destroy(rd_kafka_message_t *);

static int64_t delivered, failed;
static uint32_t *latencies_us;
static int64_t middle_from, middle_to;
static double middle_begin, middle_end;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

/* The opaque of a record is the time at which it was due, in microseconds. */
static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    (void)opaque;
    if (message->err) {
        if (failed++ == 0) fprintf(stderr, "load: delivery failed: %s\n", rd_kafka_err2str(message->err));
        return;
    }
    double now = now_s();
    int64_t took_us = (int64_t)(now * 1e6) - (int64_t)(intptr_t)message->opaque;
    latencies_us[delivered++] = (uint32_t)(took_us < 0 ? 0 : took_us);
    if (delivered == middle_from) middle_begin = now;
    if (delivered == middle_to) middle_end = now;
}

static int by_size(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t percentile(double part) {
    return delivered ? latencies_us[(int64_t)(part * (double)(delivered - 1))] : 0;
}

static rd_kafka_t *connect_as(int kind, const char *bootstrap, int properties, char **property) {
    char error[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, error, sizeof error)) die("bootstrap.servers", error);
    for (int i = 0; i < properties; i++) {
        char *equals = strchr(property[i], '=');
        if (!equals) die(property[i], "expected property=value");
        *equals = '\0';
        if (rd_kafka_conf_set(conf, property[i], equals + 1, error, sizeof error)) die(property[i], error);
    }
    if (kind == PRODUCER) rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *client = rd_kafka_new(kind, conf, error, sizeof error);
    if (!client) die("client", error);
    return client;
}

/* Text that a codec shrinks to about a third: words of random letters from a small alphabet, as logs are. */
static void fill(char *payload, size_t size, uint64_t *state) {
    for (size_t i = 0; i < size; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        payload[i] = "abcdef 0123\n"[(*state >> 33) % 12];
    }
}

static void produce(rd_kafka_t *client, const char *topic, int partitions, int64_t count, size_t size, double rate) {
    enum { VARIANTS = 64 };
    char *payloads = malloc(VARIANTS * size + 1);
    latencies_us = malloc((size_t)(count + partitions) * sizeof *latencies_us);
    if (!payloads || !latencies_us) die("memory", "too many or too large records");
    middle_from = (count + 4) / 5;
    middle_to = count - count / 10;
    uint64_t state = 42;
    fill(payloads, VARIANTS * size, &state);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
    for (int partition = 0; partition < partitions; partition++)
        if (rd_kafka_produce(handle, partition, FLAG_COPY, payloads, size, NULL, 0, NULL))
            die("produce", rd_kafka_err2str(rd_kafka_last_error()));
    rd_kafka_flush(client, 120000);
    delivered = 0;
    double begin = now_s(), cpu_begin = cpu_s();
    for (int64_t i = 0; i < count; i++) {
        double due = rate > 0 ? begin + (double)i / rate : now_s();
        /* Sleeps: a client that spins keeps the kernel's own threads from the processor, and the disk's answers wait. */
        while (rate > 0 && now_s() < due) rd_kafka_poll(client, 1);
        if (rate > 0 && now_s() - due < 0.002) due = now_s(); /* late by the grain of the sleep, nobody's fault */
        void *opaque = (void *)(intptr_t)(int64_t)(due * 1e6);
        while (rd_kafka_produce(handle, (int32_t)(i % partitions), FLAG_COPY, payloads + (size_t)(i % VARIANTS) * size,
                                size, NULL, 0, opaque)) {
            if (rd_kafka_last_error() != QUEUE_FULL) die("produce", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(client, 10);
        }
        if (i % 1024 == 0) rd_kafka_poll(client, 0);
    }
    rd_kafka_flush(client, 120000);
    double seconds = now_s() - begin, cpu = cpu_s() - cpu_begin;
    qsort(latencies_us, (size_t)delivered, sizeof *latencies_us, by_size);
    printf("{\"records\": %" PRId64 ", \"failed\": %" PRId64 ", \"bytes\": %" PRId64
           ", \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u"
           ", \"middle_bytes\": %" PRId64 ", \"middle_seconds\": %.6f}\n",
           delivered, failed, delivered * (int64_t)size, seconds, cpu, percentile(0.5), percentile(0.99),
           percentile(0.999), percentile(1.0), (middle_to - middle_from) * (int64_t)size, middle_end - middle_begin);
}

static void consume(rd_kafka_t *client, const char *topic, int partitions, int64_t count) {
    enum { BATCH = 4096, PATIENCE_S = 60 };
    static rd_kafka_message_t *messages[BATCH];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
    double begin = now_s(), cpu_begin = cpu_s(), last = begin;
    for (int partition = 0; partition < partitions; partition++)
        if (rd_kafka_consume_start_queue(handle, partition, 0, queue))
            die("consume", rd_kafka_err2str(rd_kafka_last_error()));
    int64_t records = 0, bytes = 0;
    while (records < count && now_s() - last < PATIENCE_S) {
        ptrdiff_t got = rd_kafka_consume_batch_queue(queue, 20, messages, BATCH);
        for (ptrdiff_t i = 0; i < got; i++) {
            if (messages[i]->err == 0) {
                records++;
                bytes += (int64_t)messages[i]->length;
            } else if (messages[i]->err != PARTITION_EOF) {
                die("consume", rd_kafka_err2str(messages[i]->err));
            }
            rd_kafka_message_destroy(messages[i]);
        }
        if (got > 0) last = now_s();
    }
    printf("{\"records\": %" PRId64 ", \"bytes\": %" PRId64 ", \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", records,
           bytes, now_s() - begin, cpu_s() - cpu_begin);
}

int main(int argc, char **argv) {
    if (argc >= 8 && strcmp(argv[1], "produce") == 0) {
        rd_kafka_t *client = connect_as(PRODUCER, argv[2], argc - 8, argv + 8);
        produce(client, argv[3], atoi(argv[4]), atoll(argv[5]), (size_t)atoll(argv[6]), atof(argv[7]));
    } else if (argc >= 6 && strcmp(argv[1], "consume") == 0) {
        rd_kafka_t *client = connect_as(CONSUMER, argv[2], argc - 6, argv + 6);
        consume(client, argv[3], atoi(argv[4]), atoll(argv[5]));
    } else {
        die("usage", "produce BOOTSTRAP TOPIC PARTITIONS COUNT SIZE RATE [k=v ...] | consume BOOTSTRAP TOPIC PARTITIONS COUNT [k=v ...]");
    }
    fflush(stdout);
    _Exit(failed ? 1 : 0); /* without waiting for librdkafka's threads: everything is delivered or read */
}
