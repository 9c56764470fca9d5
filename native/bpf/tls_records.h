/* What the BPF programs on libssl and libgnutls and their reader share. */
#ifndef BOTHENDS_BPF_TLS_RECORDS_H
#define BOTHENDS_BPF_TLS_RECORDS_H

#include "records.h"

enum tls_function {
    TLS_READ,
    TLS_READ_EX,
    TLS_WRITE,
    TLS_WRITE_EX,
    TLS_RECORD_RECV, /* of GnuTLS */
    TLS_RECORD_SEND,
    TLS_SET_FD,
    TLS_EXEC, /* no function: the process has started another program */
    TLS_FUNCTIONS,
};

enum {
    TLS_RING_BYTES = 4 << 20,
    MAX_TLS_PROCESSES = 16384, /* processes traced at the same time, and threads inside a function of libssl */
};

/* A call of a function that has moved data; then `length` bytes of it. */
struct tls_record {
    u32 function; /* enum tls_function */
    u32 process;  /* ids of bothends' PID namespace */
    u32 thread;
    u32 length;
    u64 at;
    u64 until;
    u64 ssl;  /* the address of the SSL object, or of GnuTLS's session */
    u64 size; /* bytes that it moved; of SSL_set_fd(), the descriptor */
};

/* Shared with the reader while the programs run. */
struct tls_shared {
    u64 lost;       /* records, for want of room in the ring buffer */
    u32 own_thread; /* of bothends, the thread that starts programs; in the initial PID namespace */
    u32 level;      /* of bothends' PID namespace */
    u32 spawns;     /* whether the children of `own_thread` are traced */
    u32 padding;
};

#endif
