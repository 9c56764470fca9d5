/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * The types of the kernel and of the system calls that the BPF programs use, with the fields that they use. */
#ifndef BOTHENDS_BPF_KERNEL_H
#define BOTHENDS_BPF_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;

enum bpf_map_type {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_RINGBUF = 27
};
enum { BPF_ANY = 0, BPF_RB_NO_WAKEUP = 1, BPF_F_MMAPABLE = 1 << 10 };

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "records.h"

#define CORE __attribute__((preserve_access_index))

extern void *bpf_rdonly_cast(void *object, u32 type) __ksym;
/* A pointer whose fields are read directly: the kernel's type is known, so that a bad address reads as 0. */
#define TYPED(pointer, type) ((type *)bpf_rdonly_cast((void *)(pointer), bpf_core_type_id_kernel(type)))

enum {
    SIGKILL = 9,
    AF_UNIX = 1,
    AF_INET = 2,
    AF_INET6 = 10,
    S_IFMT = 0170000,
    S_IFSOCK = 0140000,
    S_IFCHR = 0020000,
    S_IFIFO = 0010000
};

struct bpf_raw_tracepoint_args {
    u64 args[0];
};
struct upid {
    int nr;
} CORE;
struct pid {
    unsigned int level;
    struct upid numbers[1];
} CORE;
struct list_head {
    struct list_head *next;
} CORE;
struct file;
struct fdtable {
    unsigned int max_fds;
    void **fd;
} CORE;
struct files_struct {
    struct fdtable *fdt;
} CORE;
struct mm_struct {
    unsigned long arg_start;
    unsigned long arg_end;
} CORE;
struct signal_struct {
    int group_exit_code;
} CORE;
struct thread_info {
    unsigned long flags;
    u32 status;
} CORE;
struct task_struct {
    struct thread_info thread_info;
    int pid;
    int exit_code;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct files_struct *files;
    struct mm_struct *mm;
    struct signal_struct *signal;
} CORE;
struct inode {
    u16 i_mode;
    unsigned long i_ino;
    u32 i_rdev;
} CORE;
struct file {
    struct inode *f_inode;
    void *private_data;
} CORE;
struct sock;
struct socket {
    short type;
    struct sock *sk;
} CORE;
struct in6_addr {
    union {
        u32 u6_addr32[4];
    } in6_u;
} CORE;
struct sock_common {
    u32 skc_daddr;
    u32 skc_rcv_saddr;
    u16 skc_dport;
    u16 skc_num;
    u16 skc_family;
    u8 skc_state;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
} CORE;
struct sock {
    struct sock_common __sk_common;
    u16 sk_type;
    u16 sk_protocol;
    struct socket *sk_socket;
} CORE;
struct sockaddr_un {
    u16 sun_family;
    char sun_path[108];
} CORE;
struct unix_address {
    int len;
    struct sockaddr_un name[0];
} CORE;
struct unix_sock {
    struct unix_address *addr;
    struct sock *peer;
} CORE;
struct socket_alloc {
    struct socket socket;
    struct inode vfs_inode;
} CORE;
struct sigaction {
    void *sa_handler;
} CORE;
struct k_sigaction {
    struct sigaction sa;
} CORE;
struct kernel_siginfo {
    int si_signo;
    int si_code;
} CORE;
/* io_uring: struct io_kiocb begins with the command of the operation. */
struct io_cqe {
    u64 user_data;
    s32 res;
    union {
        u32 flags;
        int fd;
    };
} CORE;
struct io_kiocb {
    struct file *file;
    void *ctx;
    u8 opcode;
    u64 flags;
    struct io_cqe cqe;
} CORE;
struct io_uring_cqe {
    u64 user_data;
    s32 res;
    u32 flags;
} CORE;
struct io_sr_msg {
    void *buf;
    int len;
    unsigned int msg_flags;
} CORE;
struct io_rw {
    u64 addr;
    u32 len;
} CORE;
struct io_accept {
    void *addr;
    int *addr_len;
    int flags;
    u32 file_slot;
} CORE;
struct io_connect {
    void *addr;
    int addr_len;
} CORE;
struct io_close {
    int fd;
} CORE;
struct io_shutdown {
    int how;
} CORE;
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
    unsigned long r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, sp;
} CORE;
#else
struct pt_regs {
    u64 regs[31];
    u64 sp;
    s32 syscallno;
} CORE;
#endif

#if defined(__TARGET_ARCH_x86)
#define ARGUMENT_2(registers) ((registers)->si)
#define CALL_NUMBER(registers) ((registers)->orig_ax)
#else
#define ARGUMENT_2(registers) ((registers)->regs[1])
#define CALL_NUMBER(registers) ((registers)->syscallno)
#endif

struct user_msghdr {
    u64 name;
    u32 name_length;
    u32 padding;
    u64 vectors;
    u64 vector_count;
    u64 control;
    u64 control_length;
    u32 flags;
    u32 padding_2;
};
struct user_mmsghdr {
    struct user_msghdr header;
    u32 length;
    u32 padding;
};
struct user_iovec {
    u64 base;
    u64 length;
};

/* The id of a task in its PID namespace of a level; 0 if it has none. */
static __always_inline u32 id_at_level(struct task_struct *task, u64 level)
{
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    int number = 0;
    if (!pid || level > 32)
        return 0;
    bpf_probe_read_kernel(&number, sizeof number,
                          (void *)pid + bpf_core_field_offset(pid->numbers)
                              + level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr));
    return number;
}

#endif
