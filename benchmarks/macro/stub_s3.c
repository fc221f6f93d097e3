/* A stub S3 server, the yardstick of the agent on object storage: it takes next to no processor time, counts what a
 * bill would count, and answers as late as it is told to.
 *
 *   stub_s3 PORT [setting=value ...]
 *
 * prints a line when it serves on 127.0.0.1. It speaks what an S3 store asks for with path-style addresses: PUT of an
 * object (also If-None-Match: *), GET (also of a range, also If-Match), HEAD of objects and buckets, DELETE, POST ?delete,
 * list-type=2, location. Every bucket exists; signatures and checksums are not looked at.
 *
 * Settings, also while it runs with GET /-/set?name=value&...:
 *   put_ms get_ms other_ms   how long after the whole request has come it is answered
 *   slow_every slow_ms       every so-manieth PUT takes slow_ms instead (0: none)
 *   slow_gets                1: and every so-manieth GET
 *   keep_mib                 only at start: memory for bodies of more than 64 KiB, laid out at once so that runs don't pay for
 *                            it; those that don't fit are thrown away unread (0: all of them), their size is kept
 * GET /-/counts answers with JSON: requests by kind, bytes of bodies in and out, PUTs at a time at most.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 32 << 10, SMALL = 64 << 10, KEY_MAX = 1100, BUCKETS = 1 << 16, LIST_MAX = 1000, EVENTS = 64 };
enum kind { PUT, GET, HEAD, LIST, DELETE, KINDS };
static const char *const KIND_NAMES[KINDS] = {"put", "get", "head", "list", "delete"};

struct object {
    struct object *next;
    char *key; /* with its bucket: bucket/key */
    char *data; /* NULL: thrown away */
    size_t size;
    uint64_t etag;
    time_t modified;
};

struct connection {
    struct connection *next_late;
    int fd;
    double due; /* when the answer may leave */
    int is_waiting, is_putting, wants_close, is_dead;
    char head[HEAD_MAX];
    size_t have; /* bytes in head */
    size_t head_size; /* of the request under way; 0: not complete */
    char *body; /* where the body goes; NULL: nowhere */
    size_t body_size, body_got;
    char *answer; /* head and small body of the answer, malloc'ed */
    size_t answer_size;
    const char *out; /* body of a GET: memory of an object */
    size_t out_size, sent;
};

static struct object *table[BUCKETS];
static struct connection *late; /* those whose answer waits, in no order: there are few */
static char *arena;
static size_t arena_size, arena_used;
static int64_t counts[KINDS], sent_bytes, received_bytes, slowed, put_number, get_number, putting, putting_max;
static uint64_t etags = 0x5eed;
static int poller, timer;
static double put_ms, get_ms, other_ms, slow_every, slow_ms = 2000, slow_gets, keep_mib;
static const struct { const char *name; double *value; } SETTINGS[] = {
    {"put_ms", &put_ms},       {"get_ms", &get_ms},       {"other_ms", &other_ms}, {"slow_every", &slow_every},
    {"slow_ms", &slow_ms},     {"slow_gets", &slow_gets}, {"keep_mib", &keep_mib},
};

static void die(const char *what) {
    fprintf(stderr, "stub_s3: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int set(const char *text, size_t length) {
    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        size_t name = strlen(SETTINGS[i].name);
        if (length > name && text[name] == '=' && memcmp(text, SETTINGS[i].name, name) == 0) {
            *SETTINGS[i].value = strtod(text + name + 1, NULL);
            return 1;
        }
    }
    return 0;
}

/* ---- objects ---- */

static struct object **slot_of(const char *key) {
    uint32_t hash = 2166136261u;
    for (const char *c = key; *c; c++) hash = (hash ^ (uint8_t)*c) * 16777619u;
    struct object **slot = &table[hash % BUCKETS];
    while (*slot && strcmp((*slot)->key, key)) slot = &(*slot)->next;
    return slot;
}

/* Memory of the arena is not given back: bodies are written once, and one run of a benchmark fits. */
static char *room_for(size_t size) {
    if (size <= SMALL) return malloc(size + 1);
    if (arena_used + size >= arena_size) return NULL;
    char *room = arena + arena_used;
    arena_used += (size + 64) & ~(size_t)63;
    return room;
}

static void keep(const char *key, char *data, size_t size) {
    struct object **slot = slot_of(key);
    if (!*slot) {
        *slot = calloc(1, sizeof **slot);
        (*slot)->key = strdup(key);
    }
    (*slot)->data = data; /* what was there leaks: an answer may be reading it, and nobody overwrites much */
    (*slot)->size = size;
    (*slot)->etag = ++etags * 0x9e3779b97f4a7c15u;
    (*slot)->modified = time(NULL);
}

static void forget(const char *key) {
    struct object **slot = slot_of(key), *gone = *slot;
    if (!gone) return;
    *slot = gone->next;
    free(gone->key);
    free(gone);
}

/* ---- answers ---- */

static void answer(struct connection *c, const char *status, const char *more, const char *body, size_t size, int is_head) {
    char head[1024];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nServer: stub\r\nx-amz-request-id: 0\r\n%sContent-Length: %zu\r\n\r\n", status, more, size);
    size_t carried = body && !is_head ? size : 0;
    c->answer = malloc((size_t)length + carried);
    memcpy(c->answer, head, (size_t)length);
    if (carried) memcpy(c->answer + length, body, carried);
    c->answer_size = (size_t)length + carried;
}

static void refuse(struct connection *c, const char *status, const char *code, int is_head) {
    char body[256];
    int size = snprintf(body, sizeof body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message>"
                        "<RequestId>0</RequestId></Error>", code, status);
    answer(c, status, "Content-Type: application/xml\r\n", is_head ? NULL : body, is_head ? 0 : (size_t)size, is_head);
}

static void answer_xml(struct connection *c, const char *body, size_t size) {
    answer(c, "200 OK", "Content-Type: application/xml\r\n", body, size, 0);
}

static void describe(const struct object *object, char *out, size_t size) {
    char modified[64];
    struct tm when;
    strftime(modified, sizeof modified, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&object->modified, &when));
    snprintf(out, size, "ETag: \"%016llx\"\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n", (unsigned long long)object->etag, modified);
}

/* The value of a header, without its blanks; NULL: not there. Its end is at *length. */
static const char *header(const struct connection *c, const char *name, size_t *length) {
    size_t name_length = strlen(name);
    const char *line = memchr(c->head, '\n', c->head_size), *end = c->head + c->head_size;
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        if (!next) return NULL;
        if ((size_t)(next - line) > name_length && line[name_length] == ':' && !strncasecmp(line, name, name_length)) {
            const char *value = line + name_length + 1;
            while (*value == ' ') value++;
            while (next > value && (next[-1] == '\r' || next[-1] == ' ')) next--;
            *length = (size_t)(next - value);
            return value;
        }
        line = next;
    }
    return NULL;
}

/* Copies with %XX made bytes again, up to any of `stops`. */
static const char *unquote(const char *from, const char *stops, char *to, size_t size) {
    size_t length = 0;
    for (; *from && !strchr(stops, *from) && length + 1 < size; from++) {
        unsigned byte;
        if (*from == '%' && sscanf(from + 1, "%2x", &byte) == 1) {
            to[length++] = (char)byte;
            from += 2;
        } else {
            to[length++] = *from;
        }
    }
    to[length] = '\0';
    return from;
}

/* The value of a parameter of the query in `out`; 0: not there. */
static int parameter(const char *query, const char *name, char *out, size_t size) {
    size_t length = strlen(name);
    while (*query == '?' || *query == '&') {
        query++;
        if (!strncmp(query, name, length) && strchr("=& ", query[length])) {
            unquote(query + length + (query[length] == '='), "& ", out, size);
            return 1;
        }
        while (*query && *query != '&' && *query != ' ') query++;
    }
    return 0;
}

static int by_key(const void *left, const void *right) {
    return strcmp((*(struct object *const *)left)->key, (*(struct object *const *)right)->key);
}

static void list(struct connection *c, const char *bucket, const char *query) {
    char prefix[KEY_MAX] = "", after[KEY_MAX] = "", full[2 * KEY_MAX], start[2 * KEY_MAX];
    parameter(query, "prefix", prefix, sizeof prefix);
    if (!parameter(query, "continuation-token", after, sizeof after)) parameter(query, "start-after", after, sizeof after);
    size_t skip = strlen(bucket) + 1, found = 0, room = 1024;
    snprintf(full, sizeof full, "%s/%s", bucket, prefix);
    snprintf(start, sizeof start, "%s/%s", bucket, after);
    struct object **all = malloc(room * sizeof *all);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct object *each = table[i]; each; each = each->next) {
            if (strncmp(each->key, full, strlen(full)) || (*after && strcmp(each->key, start) <= 0)) continue;
            if (found == room) all = realloc(all, (room *= 2) * sizeof *all);
            all[found++] = each;
        }
    qsort(all, found, sizeof *all, by_key);
    size_t shown = found < LIST_MAX ? found : LIST_MAX, size = 0;
    char *body;
    FILE *out = open_memstream(&body, &size);
    fprintf(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
            "<Name>%s</Name><Prefix>%s</Prefix><KeyCount>%zu</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%s</IsTruncated>",
            bucket, prefix, shown, LIST_MAX, shown < found ? "true" : "false");
    if (shown < found) fprintf(out, "<NextContinuationToken>%s</NextContinuationToken>", all[shown - 1]->key + skip);
    for (size_t i = 0; i < shown; i++) {
        char when[32];
        struct tm modified;
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&all[i]->modified, &modified));
        fprintf(out, "<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>&quot;%016llx&quot;</ETag><Size>%zu</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>", all[i]->key + skip, when, (unsigned long long)all[i]->etag, all[i]->size);
    }
    fprintf(out, "</ListBucketResult>");
    fclose(out);
    answer_xml(c, body, size);
    free(body);
    free(all);
}

static void get(struct connection *c, const char *key, int is_head) {
    struct object *object = *slot_of(key);
    if (!object) return refuse(c, "404 Not Found", "NoSuchKey", is_head);
    char more[512], tag[32];
    size_t length, first = 0, last = object->size ? object->size - 1 : 0;
    describe(object, more, sizeof more);
    snprintf(tag, sizeof tag, "\"%016llx\"", (unsigned long long)object->etag);
    const char *match = header(c, "if-match", &length), *range = header(c, "range", &length);
    if (match && strncmp(match, tag, strlen(tag))) return refuse(c, "412 Precondition Failed", "PreconditionFailed", is_head);
    if (is_head) return answer(c, "200 OK", more, NULL, object->size, 1);
    if (!object->data) return refuse(c, "404 Not Found", "BodyNotKept", 0);
    const char *status = "200 OK";
    if (range && sscanf(range, "bytes=%zu-%zu", &first, &last) >= 1) {
        if (first >= object->size) return refuse(c, "416 Range Not Satisfiable", "InvalidRange", 0);
        if (last >= object->size) last = object->size - 1;
        size_t at = strlen(more);
        snprintf(more + at, sizeof more - at, "Content-Range: bytes %zu-%zu/%zu\r\n", first, last, object->size);
        status = "206 Partial Content";
    }
    c->out = object->data + first;
    c->out_size = object->size ? last - first + 1 : 0;
    sent_bytes += (int64_t)c->out_size;
    answer(c, status, more, NULL, c->out_size, 0);
}

static void delete_many(struct connection *c, const char *bucket) {
    char key[2 * KEY_MAX], *end = c->body + c->body_size, *at = c->body;
    *end = '\0';
    while ((at = strstr(at, "<Key>"))) {
        int length = snprintf(key, sizeof key, "%s/", bucket);
        unquote(at + 5, "<", key + length, sizeof key - (size_t)length);
        forget(key);
        at += 5;
    }
    static const char DONE[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
    answer_xml(c, DONE, sizeof DONE - 1);
}

static void administer(struct connection *c, const char *path) {
    char body[1024];
    int size = 0;
    if (!strncmp(path, "/-/set", 6)) {
        for (const char *at = path + 6; *at == '?' || *at == '&';) {
            size_t length = strcspn(++at, "& ");
            if (!set(at, length)) return refuse(c, "400 Bad Request", "NoSuchSetting", 0);
            at += length;
        }
    }
    size += snprintf(body, sizeof body, "{");
    for (int i = 0; i < KINDS; i++) size += snprintf(body + size, sizeof body - (size_t)size, "\"%s\": %lld, ", KIND_NAMES[i], (long long)counts[i]);
    size += snprintf(body + size, sizeof body - (size_t)size,
                     "\"received_bytes\": %lld, \"sent_bytes\": %lld, \"slowed\": %lld, \"puts_at_a_time\": %lld}\n",
                     (long long)received_bytes, (long long)sent_bytes, (long long)slowed, (long long)putting_max);
    answer(c, "200 OK", "Content-Type: application/json\r\n", body, (size_t)size, 0);
}

/* ---- requests ---- */

static double delay_ms(enum kind kind) {
    int64_t number = kind == PUT ? ++put_number : kind == GET ? ++get_number : 0;
    int may_be_slow = kind == PUT || (kind == GET && slow_gets > 0);
    if (may_be_slow && slow_every >= 1 && number % (int64_t)slow_every == 0) {
        slowed++;
        return slow_ms;
    }
    return kind == PUT ? put_ms : kind == GET ? get_ms : other_ms;
}

/* Decides the answer to a whole request, and when it may leave. */
static void serve(struct connection *c) {
    char method[16] = "", path[4096] = "", bucket[128], key[2 * KEY_MAX];
    sscanf(c->head, "%15s %4095s", method, path);
    c->due = 0;
    if (!strncmp(path, "/-/", 3)) return administer(c, path);
    const char *query = unquote(path + 1, "/? ", bucket, sizeof bucket);
    int length = snprintf(key, sizeof key, "%s/", bucket);
    if (*query == '/') query = unquote(query + 1, "? ", key + length, sizeof key - (size_t)length);
    int has_key = key[length] != '\0', is_get = !strcmp(method, "GET"), is_put = !strcmp(method, "PUT");
    enum kind kind = is_put ? PUT : !strcmp(method, "HEAD") ? HEAD : is_get ? (has_key ? GET : LIST) : DELETE;
    size_t value;
    counts[kind]++;
    received_bytes += (int64_t)c->body_size;
    c->due = now_s() + delay_ms(kind) / 1e3;
    if (header(c, "transfer-encoding", &value)) {
        c->wants_close = 1; /* the end of its body was not looked for */
        return refuse(c, "411 Length Required", "MissingContentLength", 0);
    }
    if (kind == PUT && has_key) {
        c->is_putting = 1;
        if (++putting > putting_max) putting_max = putting;
        if (header(c, "if-none-match", &value) && *slot_of(key)) {
            refuse(c, "412 Precondition Failed", "PreconditionFailed", 0);
        } else {
            char more[512];
            keep(key, c->body, c->body_size);
            c->body = NULL;
            describe(*slot_of(key), more, sizeof more);
            answer(c, "200 OK", more, NULL, 0, 0);
        }
    } else if (kind == PUT) {
        answer(c, "200 OK", "", NULL, 0, 0);
    } else if (has_key && (kind == GET || kind == HEAD)) {
        get(c, key, kind == HEAD);
    } else if (kind == HEAD) {
        answer(c, "200 OK", "x-amz-bucket-region: us-east-1\r\n", NULL, 0, 1);
    } else if (kind == LIST && parameter(query, "location", path, 1)) {
        static const char PLACE[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
        answer_xml(c, PLACE, sizeof PLACE - 1);
    } else if (kind == LIST) {
        list(c, bucket, query);
    } else if (!strcmp(method, "POST") && c->body) {
        delete_many(c, bucket);
    } else if (!strcmp(method, "DELETE")) {
        forget(key);
        answer(c, "204 No Content", "", NULL, 0, 0);
    } else {
        refuse(c, "501 Not Implemented", "NotImplemented", 0);
    }
}

static void end(struct connection *c) {
    if (c->is_dead) return;
    if (c->is_putting) putting--;
    close(c->fd); /* which takes it from the poller */
    free(c->answer);
    if (c->body && c->body_size <= SMALL) free(c->body);
    c->answer = c->body = NULL;
    c->is_dead = 1;
}

static void rearm(void) {
    double first = 0;
    for (struct connection *c = late; c; c = c->next_late)
        if (!c->is_dead && (first == 0 || c->due < first)) first = c->due;
    struct itimerspec at = {{0, 0}, {(time_t)first, (long)((first - (double)(time_t)first) * 1e9)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Reads the head of a request out of what has come. 1: it is complete, and so is c->body_size. */
static int parse(struct connection *c) {
    char *found = memmem(c->head, c->have, "\r\n\r\n", 4);
    size_t length;
    if (!found) return 0;
    c->head_size = (size_t)(found - c->head) + 4;
    const char *size = header(c, "content-length", &length), *expect = header(c, "expect", &length);
    const char *close_wanted = header(c, "connection", &length);
    c->wants_close = close_wanted && !strncasecmp(close_wanted, "close", 5);
    c->body_size = size ? strtoull(size, NULL, 10) : 0;
    c->body = c->body_size || !strncmp(c->head, "P", 1) ? room_for(c->body_size) : NULL;
    if (expect) (void)!write(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    size_t early = c->have - c->head_size;
    c->body_got = early < c->body_size ? early : c->body_size;
    if (c->body) memcpy(c->body, c->head + c->head_size, c->body_got);
    return 1;
}

/* Sends what is left of the answer. 1: all of it has gone, and the connection is ready for its next request. */
static int send_answer(struct connection *c) {
    size_t total = c->answer_size + c->out_size;
    while (c->sent < total) {
        struct iovec parts[2] = {{c->answer + c->sent, c->answer_size - c->sent}, {(char *)c->out, c->out_size}};
        int first = 0;
        if (c->sent >= c->answer_size) {
            size_t gone = c->sent - c->answer_size;
            parts[1] = (struct iovec){(char *)c->out + gone, c->out_size - gone};
            first = 1;
        }
        ssize_t sent = writev(c->fd, parts + first, 2 - first);
        if (sent < 0 && errno == EAGAIN) return 0;
        if (sent < 0) {
            end(c);
            return 0;
        }
        c->sent += (size_t)sent;
    }
    if (c->is_putting) putting--;
    if (c->body && c->body_size <= SMALL) free(c->body);
    free(c->answer);
    size_t used = c->head_size + (c->have - c->head_size < c->body_size ? c->have - c->head_size : c->body_size);
    memmove(c->head, c->head + used, c->have - used);
    c->have -= used;
    c->answer = c->body = NULL;
    c->out = NULL;
    c->is_putting = 0;
    c->head_size = c->body_size = c->body_got = c->answer_size = c->out_size = c->sent = 0;
    if (c->wants_close) end(c);
    return !c->is_dead;
}

static ssize_t receive(struct connection *c) {
    if (!c->head_size) {
        if (c->have == HEAD_MAX) return 0;
        ssize_t got = recv(c->fd, c->head + c->have, HEAD_MAX - c->have, 0);
        if (got > 0) c->have += (size_t)got;
        return got;
    }
    size_t left = c->body_size - c->body_got;
    ssize_t got = c->body ? recv(c->fd, c->body + c->body_got, left, 0) : recv(c->fd, NULL, left, MSG_TRUNC);
    if (got > 0) c->body_got += (size_t)got;
    return got;
}

/* Goes on with a connection as far as it goes without waiting. */
static void advance(struct connection *c) {
    while (!c->is_dead) {
        if (c->is_waiting) return;
        if (c->answer) {
            if (!send_answer(c)) return;
        }
        if (!c->head_size && c->have && !parse(c) && c->have == HEAD_MAX) return end(c);
        if (c->head_size && c->body_got == c->body_size) {
            serve(c);
            if (c->due > now_s()) {
                c->is_waiting = 1;
                c->next_late = late;
                late = c;
                rearm();
            }
            continue;
        }
        ssize_t got = receive(c);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) return end(c);
    }
}

static void answer_due(void) {
    uint64_t times;
    (void)!read(timer, &times, sizeof times);
    double now = now_s();
    struct connection *due = NULL;
    for (struct connection **at = &late; *at;) {
        struct connection *c = *at;
        if (c->is_dead || c->due <= now) {
            *at = c->next_late;
            c->is_waiting = 0;
            c->next_late = due;
            due = c;
        } else {
            at = &c->next_late;
        }
    }
    while (due) {
        struct connection *next = due->next_late;
        advance(due);
        due = next;
    }
    rearm();
}

static void take_in(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c); /* never freed: there are few, and a late answer may still point here */
    c->fd = fd;
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: stub_s3 PORT [setting=value ...]\n"), 2;
    for (int i = 2; i < argc; i++)
        if (!set(argv[i], strlen(argv[i]))) return fprintf(stderr, "stub_s3: no such setting: %s\n", argv[i]), 2;
    signal(SIGPIPE, SIG_IGN); /* a client may hang up in the midst of an answer: the slower one of a hedged pair */
    arena_size = (size_t)(keep_mib * (1 << 20));
    arena = arena_size ? mmap(NULL, arena_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) : NULL;
    if (arena == MAP_FAILED) die("mmap");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512)) die("listen");
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event on_listener = {.events = EPOLLIN, .data.ptr = &listener}, on_timer = {.events = EPOLLIN, .data.ptr = &timer};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &on_listener);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &on_timer);
    printf("serving\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &listener) take_in(listener);
            else if (what == &timer) answer_due();
            else if (events[i].events & (EPOLLERR | EPOLLHUP) && ((struct connection *)what)->is_waiting) end(what);
            else advance(what);
        }
    }
}
