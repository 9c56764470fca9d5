/* What the BPF programs and their reader share: the state of a thread, and the records of the ring buffer.
 *
 * A record is `struct record`, then pieces: `struct piece`, its bytes, and padding to 8 bytes. */
#ifndef BOTHENDS_BPF_RECORDS_H
#define BOTHENDS_BPF_RECORDS_H

#ifndef __bpf__
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;
#endif

enum {
    MAX_CALLS = 512,      /* system call numbers; above are calls newer than these tables */
    DATA_LIMIT = 4096,    /* bytes of data of one call, as in trace/model.py */
    PIECE_ROOM = 8192,    /* a piece may begin up to here */
    SET_BYTES = 128,      /* of each set of select(): FD_SETSIZE descriptors */
    MAX_VECTORS = 64,     /* iovecs whose lengths are copied */
    MAX_DATA_VECTORS = 8, /* iovecs whose bytes are copied */
    MAX_MESSAGES = 32,    /* messages of sendmmsg() and recvmmsg() that are copied */
    MAX_THREADS = 16384,  /* slots for traced threads: a power of two */
    PROBES = 16, /* slots that a thread may be in: the one of its id modulo MAX_THREADS, or one of the next */
    MAX_OPERATIONS = 64, /* of io_uring: enum io_uring_op */
    MAX_PROGRAMS = 64,
    PEEK = 2,       /* MSG_PEEK */
    RECENT = 4,     /* different calls of a loop that moves no data */
    REPEATS = 4096, /* of them are recorded, and then every SAMPLE-th */
    SAMPLE = 1024,
    RING_BYTES = 16 << 20,
};

#define NO_CALL 0xffffffffu
#define SLOT_CLAIMED 0xffffffffu /* the id in a slot that is being filled; 0: the slot is free */

/* enum io_uring_op of linux/io_uring.h: those on sockets. */
enum operation {
    OPERATION_SENDMSG = 9,
    OPERATION_RECVMSG = 10,
    OPERATION_ACCEPT = 13,
    OPERATION_CONNECT = 16,
    OPERATION_CLOSE = 19,
    OPERATION_READ = 22,
    OPERATION_WRITE = 23,
    OPERATION_SEND = 26,
    OPERATION_RECV = 27,
    OPERATION_SHUTDOWN = 34,
};

/* What is copied of a call: the index is in `call_kinds`, by system call number. */
enum call_kind {
    KIND_NONE,
    KIND_PLAIN, /* arguments only */
    KIND_READ,
    KIND_WRITE,
    KIND_RECVFROM,
    KIND_SENDTO,
    KIND_READV,
    KIND_WRITEV,
    KIND_RECVMSG,
    KIND_SENDMSG,
    KIND_RECVMMSG,
    KIND_SENDMMSG,
    KIND_ADDRESS,     /* bind, connect: an address goes in */
    KIND_GET_ADDRESS, /* getsockname, getpeername */
    KIND_ACCEPT,
    KIND_SOCKET,
    KIND_PAIR,
    KIND_SET_OPTION,
    KIND_GET_OPTION,
    KIND_POLL,
    KIND_PPOLL,
    KIND_SELECT,
    KIND_EPOLL_WAIT,
    KIND_EPOLL_CTL,
    KIND_SLEEP,       /* nanosleep: the time is argument 0 */
    KIND_CLOCK_SLEEP, /* clock_nanosleep: argument 2 */
    KIND_IOCTL,
    KIND_FCNTL,
    KIND_WAIT, /* wait4, waitid */
    KIND_SIGACTION,
    KIND_FORK,
    KIND_CLONE3,
    KIND_EXEC,
    KIND_PIPE,
    KIND_MASK = 0x3f,
    /* What the first descriptor may be. */
    OF_DESCRIPTOR = 0x40, /* argument 0 is a descriptor: its label is recorded */
    NOT_OF_FILES = 0x80,  /* and above 2 the call is left out unless it is a socket, or closed */
    OF_THIRD = 0x100,     /* the descriptor is argument 2 */
    ENTRY_MEMORY = 0x200, /* something is read when the call starts */
};

enum label_kind { LABEL_NONE, LABEL_SOCKET, LABEL_FILE, LABEL_TERMINAL, LABEL_PIPE };

/* What a descriptor refers to. Ports are in host byte order. */
struct label {
    u8 kind;
    u8 family;
    u16 type;
    u16 local_port;
    u16 peer_port;
    u32 protocol; /* of a terminal: its number */
    u32 state;    /* of TCP: include/net/tcp_states.h */
    u8 local[16];
    u8 peer[16];
    u64 inode;
    u64 peer_inode;
    u64 sock; /* address in the kernel */
};

/* QUIET: before its first execve(), the calls are those of bothends. GUESSED: bothends has found the thread in the
 * call `call`, which may have ended since. */
enum quiet { SPEAKS, QUIET, GUESSED };

/* The state of a traced thread, in its slot. `id` is that of the initial PID namespace, the other ids are those of
 * bothends' own. What each call writes is in the first cache lines. */
struct thread_state {
    u32 id;
    u32 program;
    u32 process;
    u32 thread;
    u32 is_quiet; /* enum quiet */
    u32 call;     /* the number of the call that lasts, or NO_CALL */
    s32 child;    /* the last child that it created */
    u64 at;       /* when the call started */
    u64 arguments[6];
    u64 limit[2]; /* struct timespec or timeval at the start; {-1, -1} for none */
    struct label label;
    u32 repeats; /* calls without data since the last one that moved data, or did something new */
    u32 next_recent;
    u64 recent[RECENT];    /* the last calls without data, each with its result */
    u8 sets[3][SET_BYTES]; /* of select() at the start */
} __attribute__((aligned(64)));

/* RECORD_LOST is made by the reader: `result` records are missing before it. */
enum record_type { RECORD_CALL, RECORD_ADOPTED, RECORD_EXIT, RECORD_SIGNAL, RECORD_SUPERSEDED, RECORD_LOST };

struct record {
    u32 size;
    u16 type;
    u16 flags;
    u32 program;
    u32 process;
    u32 thread;
    u32 call; /* of RECORD_EXIT: the call that never returned */
    u64 at;
    u64 until;
    s64 result; /* of RECORD_EXIT: exit_code as in wait(2); of RECORD_SIGNAL: the signal */
    u64 arguments[6];
    u64 lost; /* records of all programs lost so far */
    u64 limit[2];
    struct label label;
};

enum { SIGNAL_STOPS = 1, OF_URING = 2 }; /* flags of a record */

/* Descriptors of io_uring's own table (IOSQE_FIXED_FILE) have numbers from here on: they are no others. */
enum { FIXED_FILE = 1000000 };

/* An operation of io_uring that is not complete, by the address of its request. */
struct request {
    u32 program;
    u32 process;
    u32 thread;
    u32 call; /* the number of the system call that it stands for */
    u64 at;
    u64 arguments[6];
};

enum piece_type {
    PIECE_DATA = 1,
    PIECE_ADDRESS,
    PIECE_HEADER, /* struct msghdr */
    PIECE_VECTORS,
    PIECE_CONTROL,
    PIECE_OPTION,
    PIECE_POLL,
    PIECE_SETS,   /* at the start */
    PIECE_RESULT, /* the sets of select() at the end, the events of epoll_wait() */
    PIECE_LABEL,  /* of the descriptor that the call returned */
    PIECE_PATH,   /* of a UNIX socket: struct sockaddr_un's sun_path */
    PIECE_EVENT,
    PIECE_LENGTH,  /* a value-result length at the end */
    PIECE_MESSAGE, /* struct mmsghdr */
    PIECE_WORDS,   /* the command line */
    PIECE_PEER_PATH,
};

struct piece {
    u16 type;
    u16 failed; /* the memory could not be read */
    u32 length;
};

/* Set before the programs are loaded. */
struct constants {
    u16 call_kinds[MAX_CALLS]; /* enum call_kind, by system call number */
    u32 execve_number;
    u32 connect_number;
    u32 complete_has_cqe;           /* io_uring_complete has a struct io_uring_cqe (Linux 6.15) */
    u32 operations[MAX_OPERATIONS]; /* of io_uring: the system call that each stands for, or NO_CALL */
};

/* Shared with the reader while the programs run. */
struct shared {
    u64 lost;            /* records, for want of room in the ring buffer */
    u64 repeated;        /* calls that are left out: they repeat, and move no data */
    u64 lost_threads;    /* threads that are not traced, for want of room in `threads` */
    u32 own_thread;      /* of bothends, the thread that starts programs; in the initial PID namespace */
    u32 level;           /* of bothends' PID namespace */
    u32 spawns;          /* whether the children of `own_thread` are programs */
    u32 spawned_program; /* and which one */
    u32 adopts;          /* whether `adopted` has entries that the threads themselves must find */
    u32 port;            /* a process that connects to this port is followed; 0 for none */
    u32 port_program;
    u32 padding;
    s64 live[MAX_PROGRAMS]; /* the number of threads of each program */
    u32 hints[MAX_THREADS]; /* traced threads by their ids modulo MAX_THREADS: most others cost one look here */
};

#endif
